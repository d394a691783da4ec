#!/usr/bin/env bash
# Makes a rollback set of the program in backups/<YYYYmmdd_HHMMSS>/: run it before an upgrade.
#
#   ./backup.sh            make a set; prints its folder
#   ./backup.sh --list     the sets that are there
#
# Models, custom nodes, results and settings are not in it. backups/README.md says what is.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
case ${1:-} in
  "") command="make" ;;
  --list) command="list" ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
for python in "$here/.venv/bin/python" python3 python; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    exec "$python" "$here/tools/backup.py" --root "$here" "$command"
  fi
done
echo "backup.sh needs Python 3.10 or newer; ./start_multi_gpu.sh makes one in .venv." >&2
exit 2
