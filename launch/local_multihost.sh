#!/usr/bin/env bash
# Trains with N processes on this machine. Each runs the same command as one host of a pod.
#
#   launch/local_multihost.sh N [--devices=1] [--port=P] [--python=.venv/bin/python] [--dry-run] -- ARGUMENTS OF uno_jax.train
#
# Each process has --devices CPU devices. Output lines are prefixed with the process number. SIGTERM and Ctrl-C are
# passed on to all processes, which save a checkpoint and exit. The exit status is the first nonzero status.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"

PROCESSES=${1:-}
[[ $PROCESSES =~ ^[1-9][0-9]*$ ]] || die "${PROCESSES:-nothing}: expected the number of processes"
shift
parse devices= port= python= -- "$@"
DEVICES=${DEVICES:-1} PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
[[ " ${TRAIN[*]} " == *" --config="* ]] || MISSING+=("-- --config=FILE: config of the run")
[[ " ${TRAIN[*]} " == *" --workdir="* ]] || MISSING+=("-- --workdir=DIR: its workdir")
stop_if_missing
PORT=${PORT:-$((20000 + RANDOM % 10000))}

ENVIRONMENT=(JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$DEVICES")
CHILDREN=()
cd "$ROOT"
for ((process = 0; process < PROCESSES; process++)); do
  command=(env "${ENVIRONMENT[@]}" "$PYTHON" -m uno_jax.train --coordinator="localhost:$PORT" --processes="$PROCESSES"
    --process="$process" "${TRAIN[@]}")
  print_command "${command[@]}"
  $DRY_RUN && continue
  "${command[@]}" > >(sed -u "s/^/[$process] /") 2>&1 &
  CHILDREN+=($!)
done

SIGNALLED=false
trap 'SIGNALLED=true; ((${#CHILDREN[@]} == 0)) || kill -TERM "${CHILDREN[@]}" 2>/dev/null || true' TERM INT
first=0
for child in "${CHILDREN[@]}"; do
  status=0
  wait_for "$child" || status=$?
  ((first)) || first=$status
done
exit "$first"
