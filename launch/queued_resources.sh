#!/usr/bin/env bash
# Trains on a Cloud TPU slice, or several, that a queued resource gives.
#
#   launch/queued_resources.sh COMMAND --project=P --zone=Z --bucket=B --slice=v5e-16 [--name=uno] [--slices=1]
#       [--spot | --reserved] [--service-account=EMAIL] [--network=N] [--restarts=5] [--keep] [--dry-run]
#       [-- ARGUMENTS OF uno_jax.train]
#
# COMMAND is one of
#   up       all of the below, from check to logs, and again after a preemption until the run is complete; then delete
#   check    is everything there: project, API, bucket, TPU type in the zone, quota
#   create   asks for the slice          wait   until it is there
#   install  this commit, its packages and the bucket, on every host
#   run      starts uno_jax.train on every host; it goes on from the newest checkpoint of its workdir
#   status   of the slice and of the run   logs   of all hosts to logs/NAME
#   delete   the slice, with its disks. Nothing in the bucket is ever deleted.
#
# The bucket is /mnt/bucket on every host: give --workdir and data below it, so that they outlive the slice.
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
OUTCOME='' # of the run: its exit status, preempted, lost, or not started

queued_resources() { printf '%s\0' gcloud compute tpus queued-resources "$@" --zone="$ZONE" --project="$PROJECT"; }

# `on_hosts WHICH FLAGS..`: one host (0), or all of all slices.
on_hosts() {
  local which=$1
  shift
  mapfile -d '' -t ON_HOSTS < <(queued_resources ssh "$NAME" --node="$which" --worker="$which" "$@")
}

# `state ANSWER`: of the queued resource; nothing if there is none, UNKNOWN if that could not be asked now.
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
  found "--zone=$ZONE: has no $ACCELERATOR: gcloud compute tpus accelerator-types list --zone=ZONE" "$types"
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

# Fails where the slice has come and gone.
wait_active() {
  local now
  while :; do
    now=$(state ACTIVE)
    case $now in
      ACTIVE) return 0 ;;
      SUSPENDING | SUSPENDED | DELETING) return 1 ;;
      FAILED | '') die "$NAME is ${now:-not there}: $0 status --name=$NAME .. says why" ;;
    esac
    printf '%s %s\n' "$(date +%T)" "$now"
    sleep "$POLL_SECONDS"
  done
}

install() {
  local local_archive=${TMPDIR:-/tmp}/$NAME.$ARCHIVE command # another run's may be of another commit
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

# running, or the exit status of uno_jax.train; lost if there is neither.
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

# Until the run is complete. Preemption and maintenance cost no restart: what they stop goes on from its checkpoint.
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
      143 | preempted) printf '%s: %s, going on from the newest checkpoint\n' "$NAME" "$OUTCOME" ;;
      *)
        failures=$((failures + 1))
        printf '%s: %s, failure %s of at most %s\n' "$NAME" "$OUTCOME" "$failures" "$RESTARTS"
        ((failures <= RESTARTS)) || break
        ;;
    esac
  done
  logs || true
  $KEEP || delete
  [[ $OUTCOME == 0 ]]
}

# Waits for the end of the run; OUTCOME is how it ended.
follow() {
  while :; do
    OUTCOME=preempted
    [[ $(state ACTIVE) =~ ^(ACTIVE|UNKNOWN)$ ]] || return 0
    OUTCOME=$(run_state)
    [[ $OUTCOME == running || -z $OUTCOME ]] || return 0
    sleep "$POLL_SECONDS"
  done
}

need PROJECT 'the Google Cloud project that pays'
need ZONE 'where the TPUs are, as us-west4-a'
case $COMMAND in
  up | check | create | install) need BUCKET 'for checkpoints and data' ;;
esac
case $COMMAND in
  up | check | create)
    need SLICE 'its type and size, as v5e-16'
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
  wait) wait_active || die "$NAME has come and gone: $0 create .. asks for it again" ;;
  *) die "${COMMAND:-no command}: expected up, check, create, wait, install, run, status, logs or delete" ;;
esac
