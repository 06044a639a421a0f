#!/usr/bin/env bash
# Builds the image of launch/Dockerfile.gpu and runs uno_jax.train in it on the GPUs of this machine, in the foreground.
#
#   launch/gpu.sh --folder=DIR -- ARGUMENTS        trains. DIR is /folder in the container: data, checkpoints, programs
#   launch/gpu.sh --folder=DIR --benchmark         runs benchmarks/gpu.py
#   launch/gpu.sh --dry-run ..                     prints the commands and runs none
#
# Needs docker and the NVIDIA Container Toolkit. Ctrl-C saves a checkpoint; the same command resumes.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"
cd "$ROOT"
parse folder= benchmark -- "$@"
need FOLDER 'folder on this machine for data and checkpoints'
if ! $BENCHMARK; then
  [[ " ${TRAIN[*]} " == *" --config="* ]] || MISSING+=("-- --config=FILE: config of the run")
  [[ " ${TRAIN[*]} " == *" --workdir=/folder/"* ]] || MISSING+=("-- --workdir=/folder/DIR: its workdir")
fi
stop_if_missing
PROGRAM=(python -m uno_jax.train "${TRAIN[@]}")
if $BENCHMARK; then PROGRAM=(python benchmarks/gpu.py); fi

run docker build --file=launch/Dockerfile.gpu --tag=uno_jax_gpu .
# The time to stop is for the last checkpoint.
run docker run --rm --gpus=all --init --ipc=host --stop-timeout=300 --volume="$FOLDER:/folder" \
  --env=JAX_COMPILATION_CACHE_DIR=/folder/compilation uno_jax_gpu "${PROGRAM[@]}"
