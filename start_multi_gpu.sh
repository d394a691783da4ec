#!/usr/bin/env bash
# Sets up on the first start, then runs the server with one lane per GPU.
set -u
usage() {
  cat <<'TXT'
usage: ./start_multi_gpu.sh [--detach] [flags of main.py …]

Makes .venv and installs the pinned packages on the first start, then runs the server on 127.0.0.1:8188 with one lane
per visible GPU, or CPU lanes where there is none. It stays in the foreground and becomes python. Paths among the flags
are relative to the program's folder. `.venv/bin/python main.py --help` lists the flags, docs/configuration.md explains them.

  --detach              start in the background; returns when /ready answers, and prints pid and log path

  COMFY_NUM_GPUS        lanes to start (all GPUs; 2 on a machine without)
  CUDA_VISIBLE_DEVICES  the GPUs to use (all)
  PYTHON                interpreter to build .venv from; its torch, 2.8 or newer, is used as it is
  COMFY_START_TIMEOUT_S seconds that --detach waits for /ready (600)
TXT
}

cd "$(dirname "${BASH_SOURCE[0]}")" || exit 2
# shellcheck source=scripts/setup.sh
source scripts/setup.sh

# --- flags: --detach and --help are ours, everything else is main.py's -------------------------------------------------
detach=no
args=()
for word in "$@"; do
  case $word in
    --detach) detach=yes ;;
    -h | --help) usage && exit 0 ;;
    *) args+=("$word") ;;
  esac
done

# Prints the value that the server's flag $1 has among the arguments, else nothing; the last one wins, as in main.py.
flag_value() {
  local name=$1 value="" i
  for ((i = 0; i < ${#args[@]}; i++)); do
    case ${args[i]} in
      "$name") value=${args[i + 1]:-} ;;
      "$name"=*) value=${args[i]#*=} ;;
    esac
  done
  printf '%s' "$value"
}

has_flag() {
  local word
  for word in ${args[@]+"${args[@]}"}; do
    [ "$word" != "$1" ] || return 0
  done
  return 1
}

# --- what is there --------------------------------------------------------------------------------------------------
# NVIDIA GPUs that the server may use: those of CUDA_VISIBLE_DEVICES when it is set, else all that the driver lists.
count_gpus() {
  if has_flag --cpu; then
    echo 0
  elif [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    case $CUDA_VISIBLE_DEVICES in
      "" | -1*) echo 0 ;;
      *) printf '%s' "$CUDA_VISIBLE_DEVICES" | awk -F, '{print NF}' ;;
    esac
  elif command -v nvidia-smi >/dev/null 2>&1; then
    nvidia-smi -L 2>/dev/null | grep -c '^GPU '
  else
    echo 0
  fi
}

# Cores that this process may use, by affinity and by the container's quota.
count_cores() {
  local cores quota period
  cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
  if read -r quota period 2>/dev/null </sys/fs/cgroup/cpu.max && [ "$quota" != max ]; then
    quota=$(((quota + period - 1) / period))
    [ "$quota" -ge "$cores" ] || cores=$quota
  fi
  echo "$cores"
}

gpus=$(count_gpus)
lanes=$(flag_value --num-gpus)
lanes_from=--num-gpus
[ -n "$lanes" ] || { lanes=${COMFY_NUM_GPUS:-} && lanes_from=COMFY_NUM_GPUS; }
case $lanes in
  "") ;;
  *[!0-9]* | 0 | 00*) die "$lanes_from must be a whole number, 1 or more; it is '$lanes'." ;;
  ????*) die "$lanes_from is $lanes; no machine has that many GPUs." ;;
  *)
    if [ "$gpus" -gt 0 ] && [ "$((10#$lanes))" -gt "$gpus" ]; then
      die "$lanes_from is $lanes, but only $gpus GPU(s) can be used here. Set it to $gpus or less, or look at CUDA_VISIBLE_DEVICES."
    fi
    ;;
esac

port=$(flag_value --port)
port=${port:-8188}
address=$(flag_value --listen)
address=${address%%,*}
case $address in "" | -* | 0.0.0.0) address=127.0.0.1 ;; ::) address=::1 ;; esac
if [[ $port =~ ^[0-9]+$ && $address != *:* ]] && (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; then
  die "Port $port on $address is taken: a server answers there already. Stop it, or start this one with --port N."
fi

setup_venv run

# --- the environment of the server ------------------------------------------------------------------------------------
export COMFY_MULTI_GPU_SCHED=${COMFY_MULTI_GPU_SCHED:-1}
if [ "$gpus" -gt 0 ]; then
  export COMFY_NUM_GPUS=${COMFY_NUM_GPUS:-$gpus}
  export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((gpus - 1)))}
  export CUDA_DEVICE_ORDER=${CUDA_DEVICE_ORDER:-PCI_BUS_ID} # so that lane i is the GPU i of nvidia-smi
fi
share=$(($(count_cores) / $((10#${lanes:-$((gpus > 0 ? gpus : 2))}))))
[ "$share" -ge 1 ] || share=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$share} MKL_NUM_THREADS=${MKL_NUM_THREADS:-$share}

if [ "$detach" = no ]; then
  exec "$PYTHON_BIN" main.py ${args[@]+"${args[@]}"}
fi

mkdir -p logs || die "The folder logs cannot be made in $ROOT."
started=$(date +%Y%m%d_%H%M%S)
console=logs/console_${started}_$$.out
nohup "$PYTHON_BIN" main.py ${args[@]+"${args[@]}"} >"$console" 2>&1 </dev/null &
pid=$!
scheme=http
[ -z "$(flag_value --tls-certfile)" ] || scheme=https
[[ $address != *:* ]] || address="[$address]"
"$PYTHON_BIN" tools/wait_ready.py "$scheme://$address:$port/ready" "$pid" "${COMFY_START_TIMEOUT_S:-600}"
status=$?
if [ $status -ne 0 ]; then
  tail -n 20 "$console" >&2
  # A server that ended by itself tells why by its status: 2 is a setting, 1 anything else.
  if [ $status -eq 3 ]; then
    wait "$pid"
    status=$?
    say "The server ended with status $status; its output is in $console"
    exit $((status == 0 ? 1 : status))
  fi
  say "The server (pid $pid) does not answer yet; it goes on starting, its output is in $console"
  exit $status
fi
log=""
for file in logs/comfyui_*.log; do # in the order of their time stamps: the first from our start on is ours
  [[ -e $file && ! $file < logs/comfyui_$started ]] && log=$file && break
done
say "Ready on $scheme://$address:$port"
printf 'pid %s\nlog %s\n' "$pid" "${log:-$console}"
