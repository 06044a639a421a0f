#!/usr/bin/env bash
# Prepares a new TPU host, from the project's directory. It is idempotent.
#
#   launch/install_host.sh [--dry-run] --bucket=B
#
# A dry run prints the commands that are still necessary on this host and runs none.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"
cd "$ROOT"
parse bucket= -- "$@"
need BUCKET 'bucket for checkpoints and data'
stop_if_missing
MOUNT=/mnt/bucket KEY=/usr/share/keyrings/cloud.google.asc

if ! command -v gcsfuse >/dev/null; then
  run sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null <<<"deb [signed-by=$KEY] \
https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main"
  run sudo curl -fsS --output "$KEY" https://packages.cloud.google.com/apt/doc/apt-key.gpg
  # A new host may be updating itself and hold the lock.
  run sudo apt-get -o DPkg::Lock::Timeout=600 -qq update
  run sudo apt-get -o DPkg::Lock::Timeout=600 -qq install -y gcsfuse
fi
if ! mountpoint -q "$MOUNT"; then
  run sudo mkdir -p "$MOUNT"
  run sudo chown "$(id -u):$(id -g)" "$MOUNT"
  # The limit applies to buckets without a hierarchical namespace, where a directory is renamed file by file.
  run gcsfuse --implicit-dirs --rename-dir-limit=200000 "$BUCKET" "$MOUNT"
fi

# The hosts' own Python is older than 3.11.
PATH=$HOME/.local/bin:$PATH
command -v uv >/dev/null || run bash -o pipefail -c 'curl -LsSf https://astral.sh/uv/install.sh | sh'
[[ -x .venv/bin/python ]] || run uv venv --python=3.11 .venv
run uv pip install --quiet --python=.venv/bin/python -r requirements-tpu.txt
