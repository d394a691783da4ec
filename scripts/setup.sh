# shellcheck shell=bash
# Sourced by start_multi_gpu.sh and run_tests.sh: makes .venv and installs the pinned requirements, once.
#
#   setup_venv run|dev     afterwards $PYTHON_BIN is the interpreter to use; ends the script with status 2 when it cannot
#
# PYTHON=/path/to/python   builds the environment from that interpreter. When torch 2.8 or newer is importable there, it
#                          is used as it is (--system-site-packages); otherwise the pin of constraints.txt is installed.
# A stamp in .venv holds a hash of the requirement files and the interpreter: while it matches, nothing is installed.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV="$ROOT/.venv"
PYTHON_BIN="$VENV/bin/python"
export PYTHON_BIN

say() { printf '%s\n' "$*" >&2; }
die() {
  say "$@"
  exit 2
}

# Whether $1 is a Python that we support; its version is printed.
python_version_ok() {
  "$1" -c 'import sys; print(".".join(map(str, sys.version_info[:3]))); sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# Prints the interpreter to build from: $PYTHON, or the first one in PATH that fits.
find_python() {
  local candidate version seen=""
  for candidate in ${PYTHON:+"$PYTHON"} ${PYTHON:-python3 python3.12 python3.11 python3.13 python3.10 python}; do
    if version=$(python_version_ok "$candidate"); then
      command -v "$candidate"
      return 0
    fi
    [ -z "$version" ] || seen="$seen $candidate is $version;"
  done
  if [ -n "${PYTHON:-}" ]; then
    die "PYTHON=$PYTHON cannot be used: Python 3.10, 3.11, 3.12 or 3.13 is needed.${seen:+ Found:$seen}"
  fi
  die "Python 3.10, 3.11, 3.12 or 3.13 is needed and none is in PATH.${seen:+ Found:$seen} Install one, or name it: PYTHON=/path/to/python3 $0"
}

# Prints the version of a torch that the interpreter $1 already has and that we can use, or nothing. $2 is the version that
# an earlier set-up found usable: torch is imported, which takes seconds, only when it is another one now.
usable_torch() {
  "$1" - "${2:-}" 2>/dev/null <<'PY'
import importlib.metadata, re, sys
version = importlib.metadata.version("torch")
found = re.match(r"(\d+)\.(\d+)", version)
if found and (int(found[1]), int(found[2])) >= (2, 8):
    if version != sys.argv[1]:
        import torch
    print(version)
PY
}

# Prints the hash that stands for one finished set-up: interpreter, its own torch, and the requirement files in $2…
setup_hash() {
  local identity=$1
  shift
  "$PYTHON_BIN" - "$identity" "$@" <<'PY'
import hashlib, pathlib, sys
digest = hashlib.sha256(f"{sys.version} {sys.base_prefix} {sys.argv[1]}".encode())
for name in sys.argv[2:]:
    digest.update(b"\0" + pathlib.Path(name).read_bytes())
print(digest.hexdigest())
PY
}

# Makes .venv when it is missing, its interpreter is gone or too old, or $PYTHON is another one. Sets TORCH_OF_HOST to the
# version of $PYTHON's torch when that is used, now or by the start that made .venv.
make_venv() {
  local base="" before=""
  before=$(cat "$VENV/.host-torch" 2>/dev/null)
  TORCH_OF_HOST=$before
  if [ -n "${PYTHON:-}" ]; then
    base=$(find_python) || exit 2
    TORCH_OF_HOST=$(usable_torch "$base" "$before")
  fi
  if [ -x "$PYTHON_BIN" ] && python_version_ok "$PYTHON_BIN" >/dev/null && same_base "$base"; then
    [ "$before" != "$TORCH_OF_HOST" ] || return 0
  fi
  if [ -z "$base" ]; then
    base=$(find_python) || exit 2
    TORCH_OF_HOST=""
  fi
  say "Making .venv with $("$base" --version 2>&1) ($base)"
  "$base" -m venv --clear ${TORCH_OF_HOST:+--system-site-packages} "$VENV" ||
    die "The virtual environment could not be made. On Debian and Ubuntu: apt-get install python3-venv"
  [ -z "$TORCH_OF_HOST" ] || share_packages "$base"
}

# Whether .venv was made from the interpreter $1, or from any when that is empty.
same_base() {
  local identity='import sys; print(sys.base_prefix, sys.version)'
  [ -z "$1" ] || [ "$("$PYTHON_BIN" -c "$identity")" = "$("$1" -c "$identity")" ]
}

# Lets .venv see the torch of the interpreter $1, also when that belongs to a virtual environment itself.
share_packages() {
  local site
  if [ -z "$(usable_torch "$PYTHON_BIN")" ]; then
    site=$("$PYTHON_BIN" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$1" -c 'import sysconfig; print(*{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}, sep="\n")' >"$site/host_packages.pth"
  fi
  printf '%s\n' "$TORCH_OF_HOST" >"$VENV/.host-torch"
}

# pip with the constraint that fits: the pin, or the torch that is already there.
install() {
  local constraints=$ROOT/constraints.txt made="" status
  if [ -n "$TORCH_OF_HOST" ]; then
    say "Using torch $TORCH_OF_HOST, which is there already"
    made=$(mktemp)
    sed "s/^torch==.*/torch==$TORCH_OF_HOST/" "$constraints" >"$made"
    constraints=$made
  fi
  # A set-up that was cut off may have left an environment without pip.
  "$PYTHON_BIN" -m pip --version >/dev/null 2>&1 || "$PYTHON_BIN" -m ensurepip >/dev/null 2>&1
  "$PYTHON_BIN" -m pip --version >/dev/null 2>&1 || die "The environment $VENV is broken: remove that folder and start again."
  "$PYTHON_BIN" -m pip install --quiet --disable-pip-version-check --constraint "$constraints" --requirement "$1"
  status=$?
  [ -z "$made" ] || rm -f "$made"
  return $status
}

setup_venv() {
  local kind=$1 file=$ROOT/requirements.txt stamp hash
  local files=("$ROOT/constraints.txt" "$ROOT/requirements.txt")
  if [ "$kind" = dev ]; then
    file=$ROOT/requirements-dev.txt
    files+=("$file")
  fi
  stamp=$VENV/.installed-$kind
  # Two scripts started at once must not build one environment together. The lock lies on a file that is there anyway.
  exec 9<"$ROOT/requirements.txt"
  if command -v flock >/dev/null 2>&1; then flock 9; fi
  make_venv
  hash=$(setup_hash "$TORCH_OF_HOST" "${files[@]}") || die "The interpreter $PYTHON_BIN does not run."
  if [ "$(cat "$stamp" 2>/dev/null)" != "$hash" ]; then
    say "Installing the packages of ${file##*/} (once; minutes on a fresh machine)"
    rm -f "$stamp"
    install "$file" || die "The packages could not be installed; pip's words are above."
    printf '%s\n' "$hash" >"$stamp"
  fi
  exec 9<&-
}
