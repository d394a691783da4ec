#!/usr/bin/env bash
# Brings the program back to a set that backup.sh made, and checks every file of it.
#
#   ./rollback.sh            the sets that are there
#   ./rollback.sh <stamp>    back to backups/<stamp>; what is there now becomes a set itself
#
# Models, custom nodes, results and settings stay as they are. A running server goes on with the old code until it is
# started again.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=""
for candidate in "$here/.venv/bin/python" python3 python; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    python=$candidate && break
  fi
done
if [ -z "$python" ]; then
  echo "rollback.sh needs Python 3.10 or newer." >&2
  exit 2
fi
case ${1:-} in
  "") exec "$python" "$here/tools/backup.py" --root "$here" list ;;
  -*) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
tool=$here/tools/backup.py
# A tree that needs a rollback may have lost this program too: then it is the set's own that restores.
if ! "$python" -c 'import ast, sys; ast.parse(open(sys.argv[1], encoding="utf-8").read())' "$tool" 2>/dev/null; then
  tool=$(mktemp) || exit 2
  trap 'rm -f "$tool"' EXIT
  if ! tar -xzOf "$here/backups/$1/packages.tar.gz" tools/backup.py >"$tool" 2>/dev/null; then
    echo "tools/backup.py is broken, and backups/$1 holds none." >&2
    exit 1
  fi
fi
"$python" "$tool" --root "$here" restore "$1"
