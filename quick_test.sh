#!/usr/bin/env bash
# Checks a server that is already running, in under a minute: a line per check, exit status 0 only when all passed.
#
#   ./quick_test.sh [--url http://127.0.0.1:8188] [--lanes N] [--timeout SECONDS] [--workflow FILE]
#
# The checks are tools/quick_test.py; they need a Python 3.10 or newer and nothing else.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for python in "$here/.venv/bin/python" python3 python; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    exec "$python" "$here/tools/quick_test.py" "$@"
  fi
done
echo "quick_test.sh needs Python 3.10 or newer; ./start_multi_gpu.sh makes one in .venv." >&2
exit 2
