#!/usr/bin/env bash
# Trains on one or more Cloud TPU slices of a queued resource.
#
#   launch/queued_resources.sh COMMAND --project=P --zone=Z --bucket=B --slice=v5e-16 [--name=uno] [--slices=1]
#       [--spot | --reserved] [--service-account=EMAIL] [--network=N] [--restarts=5] [--keep] [--dry-run]
#       [-- ARGUMENTS OF uno_jax.train]
#
# COMMAND is one of
#   up       all commands from check to run, again after each preemption until the run is complete; then logs and delete
#   check    checks project, API, bucket, TPU type in the zone, and quota
#   create   requests the slice
#   wait     waits until the slice is active
#   install  installs this commit and its packages and mounts the bucket, on every host
#   run      starts uno_jax.train on every host. It resumes from the newest checkpoint in its workdir
#   status   shows the slice and the run
#   logs     saves the logs of all hosts to logs/NAME
#   delete   deletes the slice with its disks
#
# No command deletes anything in the bucket. The bucket is mounted at /mnt/bucket on every host: --workdir and the data
# must be below it to outlive the slice.
# A dry run prints every command and runs none.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"

COMMAND=${1:-}
(($#)) && shift
parse project= zone= bucket= slice= slices= name= service-account= network= restarts= spot reserved keep -- "$@"
NAME=${NAME:-uno} SLICES=${SLICES:-1} RESTARTS=${RESTARTS:-5}
check_values
POLL_SECONDS=${POLL_SECONDS:-60}
ARCHIVE=uno_jax.tar.gz
OUTCOME='' # exit status of the run, or preempted, lost or not started

queued_resources() { printf '%s\0' gcloud compute tpus queued-resources "$@" --zone="$ZONE" --project="$PROJECT"; }

# `on_hosts WHICH FLAGS..` sets ON_HOSTS to an ssh command for the first host (0) or for all hosts of all slices (all).
on_hosts() {
  local which=$1
  shift
  mapfile -d '' -t ON_HOSTS < <(queued_resources ssh "$NAME" --node="$which" --worker="$which" "$@")
}

# `state ANSWER` prints the state of the queued resource, nothing if there is none, or UNKNOWN if the query failed.
state() {
  local command errors
  mapfile -d '' -t command < <(queued_resources describe "$NAME" '--format=value(state.state)')
  { errors=$(ask "$1" "${command[@]}" 2>&1 >&4) && return 0; } 4>&1
  [[ $errors != *NOT_FOUND* ]] || return 0
  printf '%s\n' "$errors" >&2
  echo UNKNOWN
}

check() {
  local types quota=$QUOTA
  $SPOT && quota=$QUOTA_SPOT
  check_project_and_bucket tpu.googleapis.com
  types=$(ask "$ACCELERATOR" gcloud compute tpus accelerator-types describe "$ACCELERATOR" --zone="$ZONE" \
    --project="$PROJECT" --format='value(type)' || true)
  found "--zone=$ZONE: no $ACCELERATOR in this zone. See gcloud compute tpus accelerator-types list --zone=ZONE" "$types"
  $RESERVED || check_quota tpu.googleapis.com "$quota" "$ZONE" $((QUOTA_UNITS * SLICES))
  stop_if_missing
}

create() {
  local flags=(--accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME") command now
  while now=$(state '') && [[ $now =~ ^(SUSPENDING|DELETING|UNKNOWN)$ ]]; do sleep "$POLL_SECONDS"; done
  case $now in
    '') ;;
    SUSPENDED | FAILED) delete ;;
    *) return 0 ;;
  esac
  if ((SLICES > 1)); then
    flags+=(--node-count="$SLICES" --node-prefix="$NAME")
  else
    flags+=(--node-id="$NAME-0")
  fi
  $SPOT && flags+=(--spot)
  $RESERVED && flags+=(--reserved)
  [[ -z $SERVICE_ACCOUNT ]] || flags+=(--service-account="$SERVICE_ACCOUNT")
  [[ -z $NETWORK ]] || flags+=(--network="$NETWORK")
  mapfile -d '' -t command < <(queued_resources create "$NAME" "${flags[@]}")
  run "${command[@]}"
}

# Fails if the slice was preempted.
wait_active() {
  local now
  while :; do
    now=$(state ACTIVE)
    case $now in
      ACTIVE) return 0 ;;
      SUSPENDING | SUSPENDED | DELETING) return 1 ;;
      FAILED | '') die "$NAME is ${now:-missing}. For the reason see $0 status --name=$NAME .." ;;
    esac
    printf '%s %s\n' "$(date +%T)" "$now"
    sleep "$POLL_SECONDS"
  done
}

install() {
  local local_archive=${TMPDIR:-/tmp}/$NAME.$ARCHIVE command # one per run, because commits may differ
  mapfile -d '' -t command < <(
    queued_resources scp "$local_archive" "$NAME:$ARCHIVE" --node=all --worker=all
  )
  on_hosts all --command="mkdir -p uno_jax && tar -xzf $ARCHIVE -C uno_jax && \
uno_jax/launch/install_host.sh --bucket=$(printf %q "$BUCKET")"
  run git -C "$ROOT" archive --format=tar.gz --output="$local_archive" HEAD &&
    run "${command[@]}" &&
    run "${ON_HOSTS[@]}"
}

start() {
  on_hosts all --command="uno_jax/launch/start_host.sh $(printf '%q ' "${TRAIN[@]}")"
  run "${ON_HOSTS[@]}"
}

# Prints running, the exit status of uno_jax.train, or lost.
run_state() {
  on_hosts 0 --command='uno_jax/launch/start_host.sh --state'
  ask 0 "${ON_HOSTS[@]}" 2>/dev/null | tail -n 1 || true
}

logs() {
  run mkdir -p "logs/$NAME"
  on_hosts all --command='cat uno_jax/run.log' --output-directory="logs/$NAME"
  run "${ON_HOSTS[@]}"
}

status() {
  local command
  mapfile -d '' -t command < <(queued_resources describe "$NAME")
  run "${command[@]}"
  printf 'run: %s\n' "$(run_state)"
}

delete() {
  local command
  mapfile -d '' -t command < <(queued_resources delete "$NAME" --force --quiet)
  run "${command[@]}"
}

# Repeats until the run is complete. Preemption and maintenance do not count as restarts.
up() {
  local failures=0
  check
  while :; do
    create
    if ! wait_active; then
      OUTCOME=preempted
    elif install && start; then
      follow
    else
      OUTCOME='not started'
    fi
    case $OUTCOME in
      0) break ;;
      143 | preempted) printf '%s: %s, resuming from the newest checkpoint\n' "$NAME" "$OUTCOME" ;;
      *)
        failures=$((failures + 1))
        printf '%s: %s, failure %s (at most %s restarts)\n' "$NAME" "$OUTCOME" "$failures" "$RESTARTS"
        ((failures <= RESTARTS)) || break
        ;;
    esac
  done
  logs || true
  $KEEP || delete
  [[ $OUTCOME == 0 ]]
}

# Waits for the end of the run and sets OUTCOME.
follow() {
  while :; do
    OUTCOME=preempted
    [[ $(state ACTIVE) =~ ^(ACTIVE|UNKNOWN)$ ]] || return 0
    OUTCOME=$(run_state)
    [[ $OUTCOME == running || -z $OUTCOME ]] || return 0
    sleep "$POLL_SECONDS"
  done
}

need PROJECT 'Google Cloud project'
need ZONE 'zone of the TPUs, such as us-west4-a'
case $COMMAND in
  up | check | create | install) need BUCKET 'bucket for checkpoints and data' ;;
esac
case $COMMAND in
  up | check | create)
    need SLICE 'type and size of the slice, such as v5e-16'
    [[ -z $SLICE ]] || slice_facts "$SLICE"
    ;;
esac
case $COMMAND in
  up | run) need_train ;;
esac
stop_if_missing
case $COMMAND in
  up | check | create | install | status | logs | delete) "$COMMAND" ;;
  run) start ;;
  wait) wait_active || die "$NAME was preempted. To request it again: $0 create .." ;;
  *) die "${COMMAND:-no command}: expected up, check, create, wait, install, run, status, logs or delete" ;;
esac
