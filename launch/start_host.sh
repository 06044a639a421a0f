#!/usr/bin/env bash
# Runs uno_jax.train on this host as a systemd unit, which outlives the connection.
#
#   launch/start_host.sh ARGUMENTS             starts the run unless it is running, with output to run.log
#   launch/start_host.sh --dry-run ARGUMENTS   prints the commands that would start it
#   launch/start_host.sh --state               prints `running`, the exit status, or `lost` if there is neither
#   launch/start_host.sh --here ARGUMENTS      runs in the foreground (this is what the unit does)
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"
cd "$ROOT"
STATUS=run.status UNIT=uno_jax

if [[ ${1:-} == --dry-run ]]; then
  DRY_RUN=true
  shift
fi
case ${1:-} in
  --state)
    if [[ -f $STATUS ]]; then
      cat "$STATUS"
    elif systemctl is-active --quiet "$UNIT"; then
      echo running
    else
      echo lost
    fi
    ;;
  --here)
    shift
    # On SIGTERM (the host is about to shut down) the program saves a checkpoint and exits. Wait for it.
    trap 'SIGNALLED=true' TERM
    .venv/bin/python -m uno_jax.train "$@" >>run.log 2>&1 &
    status=0
    wait_for $! || status=$?
    echo "$status" >"$STATUS"
    ;;
  *)
    systemctl is-active --quiet "$UNIT" && exit 0
    run rm -f "$STATUS"
    run sudo systemctl reset-failed "$UNIT" 2>/dev/null || true
    run sudo systemd-run --quiet --unit="$UNIT" --uid="$(id -u)" --gid="$(id -g)" --working-directory="$PWD" \
      --setenv=HOME="$HOME" --property=TimeoutStopSec=300 "$PWD/launch/start_host.sh" --here "$@"
    ;;
esac
