#!/usr/bin/env bash
# Makes a fresh TPU host ready, from the project's directory: `install_host.sh BUCKET`. Running it again does no harm.
set -euo pipefail
cd "$(dirname "$0")/.."
BUCKET=$1
MOUNT=/mnt/bucket

if ! command -v gcsfuse >/dev/null; then
  echo "deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt \
gcsfuse-$(lsb_release -cs) main" | sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg |
    sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
  # A fresh host may be updating itself.
  sudo apt-get -o DPkg::Lock::Timeout=600 -qq update
  sudo apt-get -o DPkg::Lock::Timeout=600 -qq install -y gcsfuse
fi
if ! mountpoint -q "$MOUNT"; then
  sudo mkdir -p "$MOUNT"
  sudo chown "$(id -u):$(id -g)" "$MOUNT"
  # The limit counts where the bucket has no hierarchical namespace, and a directory is renamed file by file.
  gcsfuse --implicit-dirs --rename-dir-limit=200000 "$BUCKET" "$MOUNT"
fi

# The hosts' own Python is older than 3.11.
command -v uv >/dev/null || [[ -x $HOME/.local/bin/uv ]] || curl -LsSf https://astral.sh/uv/install.sh | sh
PATH=$HOME/.local/bin:$PATH
[[ -x .venv/bin/python ]] || uv venv --python=3.11 .venv
uv pip install --quiet --python=.venv/bin/python -r requirements-tpu.txt
