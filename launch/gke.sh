#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster, as a JobSet.
#
#   launch/gke.sh COMMAND --project=P --zone=Z --cluster=C --bucket=B --image=REGION-docker.pkg.dev/P/REPOSITORY/uno_jax:TAG
#       --slice=v5e-16 [--slices=1] [--spot] [--name=uno] [--namespace=default] [--service-account=default]
#       [--restarts=10] [--dry-run] [-- ARGUMENTS OF uno_jax.train]
#
# COMMAND is one of
#   up        check, image, run, wait, logs
#   check     is everything there: project, API, bucket, image repository, cluster, JobSet in it
#   cluster   makes a cluster with these slices, by xpk (pip install xpk), with JobSet and the bucket driver
#   image     builds the image and pushes it
#   manifest  prints the JobSet
#   run       starts it, in place of one that has ended; it goes on from the newest checkpoint of its workdir
#   wait      until it is complete or has failed
#   status    of the JobSet and its pods    logs   of all pods to logs/NAME    delete   the JobSet and its pods
#
# Nothing in the bucket is ever deleted, nor the cluster. After a preemption the JobSet starts all hosts again, and the
# run resumes. The bucket is /mnt/bucket in every pod: give --workdir and data below it.
# A dry run prints every command and runs none.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"

COMMAND=${1:-}
(($#)) && shift
parse project= zone= cluster= bucket= image= slice= slices= name= namespace= service-account= restarts= spot -- "$@"
NAME=${NAME:-uno} NAMESPACE=${NAMESPACE:-default} SLICES=${SLICES:-1} RESTARTS=${RESTARTS:-10}
SERVICE_ACCOUNT=${SERVICE_ACCOUNT:-default}
check_values
POLL_SECONDS=${POLL_SECONDS:-60}

# A cluster is in a zone or, as xpk makes it, in the region of its TPUs: this looks it up. A dry run takes the region.
locate() {
  local region=${ZONE%-*}
  LOCATION=$(ask "$region" gcloud container clusters list --project="$PROJECT" \
    --filter="name=$CLUSTER AND location=($ZONE $region)" --sort-by=~location --limit=1 --format='value(location)' ||
    true)
  [[ -n $LOCATION ]]
}

no_cluster() {
  MISSING+=("--cluster=$CLUSTER: not in $ZONE or its region, or no access: $0 cluster .. makes one (needs TPU quota)")
}

kubernetes() { printf '%s\0' kubectl --context="gke_${PROJECT}_${LOCATION}_$CLUSTER" --namespace="$NAMESPACE" "$@"; }

# `kube COMMAND..` runs kubectl; `kube_ask ANSWER COMMAND..` asks it.
kube() {
  local command
  mapfile -d '' -t command < <(kubernetes "$@")
  run "${command[@]}"
}

kube_ask() {
  local answer=$1 command
  shift
  mapfile -d '' -t command < <(kubernetes "$@")
  ask "$answer" "${command[@]}"
}

# A string of YAML, which one of JSON is, whatever it looks like.
yaml_string() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

yaml_list() {
  local argument items=()
  for argument in "$@"; do items+=("$(yaml_string "$argument")"); done
  local IFS=,
  printf '[%s]' "${items[*]}"
}

manifest() {
  local text name value
  text=$(<"$ROOT/launch/jobset.yaml")
  $SPOT || text=$(grep -v 'gke-spot: ' <<<"$text")
  for name in RESTARTS SLICES HOSTS CHIPS_PER_HOST NAME NAMESPACE SERVICE_ACCOUNT GKE_ACCELERATOR TOPOLOGY SPOT IMAGE \
    BUCKET TRAIN; do
    case $name in
      RESTARTS | SLICES | HOSTS | CHIPS_PER_HOST) value=${!name} ;;
      TRAIN) value=$(yaml_list "${TRAIN[@]}") ;;
      *) value=$(yaml_string "${!name}") ;;
    esac
    text=${text//"\${$name}"/"$value"}
  done
  printf '%s\n' "$text"
}

check() {
  local repository=${IMAGE%/*} region=${IMAGE%%-docker.pkg.dev/*} nodes
  check_project_and_bucket container.googleapis.com
  found "--image=$IMAGE: its repository is not there: gcloud artifacts repositories create ${repository##*/} \
--location=$region --repository-format=docker --project=$PROJECT" \
    "$(ask there gcloud artifacts repositories describe "${repository##*/}" --location="$region" \
      --project="$PROJECT" --format='value(name)' || true)"
  if locate && run gcloud container clusters get-credentials "$CLUSTER" --location="$LOCATION" --project="$PROJECT"; then
    found 'JobSet is not installed in the cluster: https://jobset.sigs.k8s.io/docs/installation' \
      "$(kube_ask there get crd jobsets.jobset.x-k8s.io --output=name || true)"
    nodes=$(kube_ask there get nodes --output=name \
      --selector="cloud.google.com/gke-tpu-accelerator=$GKE_ACCELERATOR,cloud.google.com/gke-tpu-topology=$TOPOLOGY" ||
      true)
    # Nodes that are made when they are needed, or were preempted, are not there now.
    [[ -n $nodes ]] || printf '%s\n' "the cluster has no node of $GKE_ACCELERATOR, $TOPOLOGY now: the run waits for \
them. If it has no node pool of these, $0 cluster .. makes one" >&2
  else
    no_cluster
  fi
  stop_if_missing
}

cluster() {
  local capacity=--on-demand quota=$GKE_QUOTA-per-project-region
  case $SLICE in
    v5e-1 | v5e-4) die "--slice=$SLICE: xpk makes none. In another cluster with JobSet and the bucket driver: gcloud \
container node-pools create ${SLICE} --cluster=C --location=L --node-locations=${ZONE} --machine-type=${MACHINE} \
--num-nodes=1" ;;
  esac
  $SPOT && capacity=--spot quota=PREEMPTIBLE-$quota
  check_quota compute.googleapis.com "$quota" "${ZONE%-*}" $((HOSTS * CHIPS_PER_HOST * SLICES))
  stop_if_missing
  run xpk cluster create --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" --tpu-type="$ACCELERATOR" \
    --num-slices="$SLICES" "$capacity" --enable-workload-identity --enable-gcsfuse-csi-driver
}

image() {
  run docker build --file="$ROOT/launch/Dockerfile" --tag="$IMAGE" "$ROOT" && run docker push "$IMAGE"
}

# `ended ANSWER`: `JobSet Completed` or `JobSet Failed` as it ended, `JobSet ` if it has not, nothing if there is none.
ended() {
  kube_ask "$1" get jobset "$NAME" --ignore-not-found '--output=jsonpath={.kind} {.status.terminalState}'
}

# A JobSet that has ended is not started by being applied again, nor can it be changed: it makes room first, its pods
# too.
start() {
  local text before
  before=$(ended '')
  [[ $before != 'JobSet '?* ]] || kube delete jobset "$NAME" --cascade=foreground --wait
  text=$(manifest)
  kube apply --filename=- <<<"$text"
  ! $DRY_RUN || printf '%s\n' "$text"
}

wait_complete() {
  local now
  while :; do
    now=$(ended 'JobSet Completed' || echo unknown)
    case $now in
      'JobSet Completed') return 0 ;;
      'JobSet Failed') return 1 ;;
      '') die "there is no JobSet $NAME in the namespace $NAMESPACE: it was deleted, or never started ($0 run ..)" ;;
    esac
    sleep "$POLL_SECONDS"
  done
}

logs() {
  local command
  run mkdir -p "logs/$NAME"
  mapfile -d '' -t command < <(kubernetes logs --selector="jobset.sigs.k8s.io/jobset-name=$NAME" --container=train \
    --prefix --tail=-1 --max-log-requests=1024)
  run bash -c "$(printf '%q ' "${command[@]}") >$(printf %q "logs/$NAME/pods.log")"
}

up() {
  local status=0
  check
  image
  start
  wait_complete || status=1
  logs
  return "$status"
}

status() {
  kube get jobset "$NAME" --output=wide
  kube get pods --selector="jobset.sigs.k8s.io/jobset-name=$NAME" --output=wide
}

need PROJECT 'the Google Cloud project that pays'
case $COMMAND in
  manifest | image) ;;
  *)
    need ZONE 'of the cluster and its TPUs, as us-west4-a'
    need CLUSTER 'the name of the cluster'
    ;;
esac
case $COMMAND in
  up | check | image | manifest | run) need IMAGE 'where the image goes, as REGION-docker.pkg.dev/P/REPOSITORY/NAME:TAG' ;;
esac
case $COMMAND in
  up | check | manifest | run) need BUCKET 'for checkpoints and data' ;;
esac
case $COMMAND in
  up | check | cluster | manifest | run)
    need SLICE 'its type and size, as v5e-16'
    [[ -z $SLICE ]] || slice_facts "$SLICE"
    ;;
esac
case $COMMAND in
  up | manifest | run) need_train ;;
esac
stop_if_missing
case $COMMAND in
  run | wait | status | logs | delete) locate || no_cluster ;;
esac
stop_if_missing
case $COMMAND in
  up | check | cluster | image | manifest | status | logs) "$COMMAND" ;;
  run) start ;;
  wait) wait_complete ;;
  delete) kube delete jobset "$NAME" ;;
  *) die "${COMMAND:-no command}: expected up, check, cluster, image, manifest, run, wait, status, logs or delete" ;;
esac
