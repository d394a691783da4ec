#!/usr/bin/env bash
# The one command for tests, here and in CI: set-up, format, lint, types, shell scripts, then all tests.
#
#   ./run_tests.sh                       everything
#   ./run_tests.sh tests/unit/web -k ws  only pytest, with these arguments
#
# CI=1 makes a missing program a failure instead of a skip (a missing GPU stays a skip).
set -u
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 2
# shellcheck source=scripts/setup.sh
source scripts/setup.sh

# Programs that tests drive for real, `program=package` where the two differ; installed where that needs no question asked.
PROGRAMS=(chromium jq shellcheck curl nginx systemd-analyze=systemd promtool=prometheus)
# shellcheck disable=SC2317 # called through step
install_programs() {
  local program missing=()
  for program in "${PROGRAMS[@]}"; do
    command -v "${program%=*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${program%=*}" ] || missing+=("${program#*=}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "Installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq "${missing[@]}" >/dev/null 2>&1 ||
      { apt-get update -qq && apt-get install -y -qq "${missing[@]}"; } >/dev/null ||
      say "${missing[*]} could not be installed; the tests that need them say so."
  else
    say "Not installed: ${missing[*]}. The tests that need them are skipped."
  fi
}

failed=()
# Runs a check, prints its time, remembers its failure and goes on: one run shows everything that is wrong.
step() {
  local name=$1 begun=$SECONDS status=0
  shift
  "$@" || status=$?
  [ $status -eq 0 ] || failed+=("$name")
  printf '%-14s %4d s   %s\n' "$name" $((SECONDS - begun)) "$([ $status -eq 0 ] && echo ok || echo FAILED)"
}

step set-up setup_venv dev
if [ $# -gt 0 ]; then
  exec "$PYTHON_BIN" -m pytest "$@"
fi
step programs install_programs
step format "$PYTHON_BIN" -m ruff format --check --quiet .
step lint "$PYTHON_BIN" -m ruff check --quiet .
step types "$PYTHON_BIN" -m mypy --no-error-summary
if command -v shellcheck >/dev/null 2>&1; then
  step shell shellcheck -x ./*.sh scripts/*.sh .ci/run
fi

# Lanes on a CPU share the cores; torch's own threads would only fight over them.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
[ ${#failed[@]} -eq 0 ] || say "" "FAILED before the tests: ${failed[*]}"
"$PYTHON_BIN" -m pytest --continue-on-collection-errors
status=$?
if [ ${#failed[@]} -gt 0 ]; then
  say "FAILED besides the tests: ${failed[*]}"
  exit 1
fi
exit $status
