#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster, as a JobSet.
#
#   launch/gke.sh COMMAND --project=P --zone=Z --cluster=C --bucket=B --image=REGION-docker.pkg.dev/P/REPOSITORY/uno_jax:TAG
#       --slice=v5e-16 [--slices=1] [--spot] [--name=uno] [--namespace=default] [--service-account=default]
#       [--restarts=10] [--dry-run] [-- ARGUMENTS OF uno_jax.train]
#
# COMMAND is one of
#   up        check, image, run, wait, logs
#   check     checks project, API, bucket, image repository, cluster and JobSet
#   cluster   creates a cluster with these slices, JobSet and the bucket driver, with xpk (pip install xpk)
#   image     builds and pushes the image
#   manifest  prints the JobSet
#   run       starts the JobSet, replacing one that has ended. The run resumes from the newest checkpoint in its workdir
#   wait      waits until the JobSet is complete or has failed
#   status    shows the JobSet and its pods
#   logs      saves the logs of all pods to logs/NAME
#   delete    deletes the JobSet and its pods
#
# No command deletes the cluster or anything in the bucket. After a preemption the JobSet restarts all hosts, and the
# run resumes. The bucket is mounted at /mnt/bucket in every pod: --workdir and the data must be below it.
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

# Looks up the location of the cluster: a zone or, for clusters created by xpk, a region. A dry run assumes the region.
locate() {
  local region=${ZONE%-*}
  LOCATION=$(ask "$region" gcloud container clusters list --project="$PROJECT" \
    --filter="name=$CLUSTER AND location=($ZONE $region)" --sort-by=~location --limit=1 --format='value(location)' ||
    true)
  [[ -n $LOCATION ]]
}

no_cluster() {
  MISSING+=("--cluster=$CLUSTER: not in $ZONE or its region, or no access. To create it: $0 cluster ..")
}

kubernetes() { printf '%s\0' kubectl --context="gke_${PROJECT}_${LOCATION}_$CLUSTER" --namespace="$NAMESPACE" "$@"; }

# `kube COMMAND..` and `kube_ask ANSWER COMMAND..` are `run` and `ask` for kubectl.
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

# A quoted YAML string. Every JSON string is one.
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
  found "--image=$IMAGE: the repository does not exist. To create it: gcloud artifacts repositories create ${repository##*/} \
--location=$region --repository-format=docker --project=$PROJECT" \
    "$(ask there gcloud artifacts repositories describe "${repository##*/}" --location="$region" \
      --project="$PROJECT" --format='value(name)' || true)"
  if locate && run gcloud container clusters get-credentials "$CLUSTER" --location="$LOCATION" --project="$PROJECT"; then
    found 'JobSet is not installed in the cluster: https://jobset.sigs.k8s.io/docs/installation' \
      "$(kube_ask there get crd jobsets.jobset.x-k8s.io --output=name || true)"
    nodes=$(kube_ask there get nodes --output=name \
      --selector="cloud.google.com/gke-tpu-accelerator=$GKE_ACCELERATOR,cloud.google.com/gke-tpu-topology=$TOPOLOGY" ||
      true)
    # A warning only: autoscaled or preempted nodes appear later.
    [[ -n $nodes ]] || printf '%s\n' "warning: the cluster has no $GKE_ACCELERATOR $TOPOLOGY nodes at the moment. The \
run waits for them. If there is no such node pool, create one with $0 cluster .." >&2
  else
    no_cluster
  fi
  stop_if_missing
}

cluster() {
  local capacity=--on-demand quota=$GKE_QUOTA-per-project-region
  case $SLICE in
    v5e-1 | v5e-4) die "--slice=$SLICE: not supported by xpk. In a cluster with JobSet and the bucket driver: gcloud \
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

# `ended ANSWER` prints `JobSet Completed` or `JobSet Failed` if the JobSet has ended, `JobSet ` if it has not, and
# nothing if there is none.
ended() {
  kube_ask "$1" get jobset "$NAME" --ignore-not-found '--output=jsonpath={.kind} {.status.terminalState}'
}

# A JobSet that has ended can be neither restarted nor changed. It is deleted first, with its pods.
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
      '') die "there is no JobSet $NAME in the namespace $NAMESPACE: it was deleted or never started ($0 run ..)" ;;
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

need PROJECT 'Google Cloud project'
case $COMMAND in
  manifest | image) ;;
  *)
    need ZONE 'zone of the cluster and its TPUs, such as us-west4-a'
    need CLUSTER 'name of the cluster'
    ;;
esac
case $COMMAND in
  up | check | image | manifest | run) need IMAGE 'image, such as REGION-docker.pkg.dev/P/REPOSITORY/NAME:TAG' ;;
esac
case $COMMAND in
  up | check | manifest | run) need BUCKET 'bucket for checkpoints and data' ;;
esac
case $COMMAND in
  up | check | cluster | manifest | run)
    need SLICE 'type and size of the slice, such as v5e-16'
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
