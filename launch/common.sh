# shellcheck shell=bash
# shellcheck disable=SC2034 # what the scripts read
# For the launch scripts: options, the table of slices, what is missing, and commands that a dry run only prints.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DRY_RUN=false
MISSING=()
exec 3>&1 # where commands are printed: also those whose output is read

die() {
  printf '%s\n' "$*" >&2
  exit 2
}

print_command() {
  printf '+' >&3
  printf ' %q' "$@" >&3
  printf '\n' >&3
}

# Prints a command as it could be pasted, and runs it unless this is a dry run.
run() {
  print_command "$@"
  $DRY_RUN || "$@"
}

# For a command that changes nothing, and whose output is needed: `ask ANSWER COMMAND..`. A dry run prints the command
# and takes ANSWER for its output.
ask() {
  local answer=$1
  shift
  if $DRY_RUN; then
    print_command "$@"
    printf '%s\n' "$answer"
  else
    "$@"
  fi
}

# `wait_for PID`: its exit status. A signal that is trapped ends `wait`, and not this.
wait_for() {
  local status
  while :; do
    SIGNALLED=false status=0
    wait "$1" || status=$?
    $SIGNALLED || return "$status"
  done
}

# `parse NAMES.. -- ARGUMENTS..` sets a variable for each --name=value, and TRAIN to what follows a `--` of its own.
# NAMES are those of options with a value; --dry-run, --spot, --reserved and --keep have none.
parse() {
  local names=() argument name
  while [[ $1 != -- ]]; do
    names+=("$1")
    shift
  done
  shift
  SPOT=false RESERVED=false KEEP=false TRAIN=()
  for name in "${names[@]}"; do printf -v "$(variable "$name")" ''; done
  while (($#)); do
    argument=$1
    shift
    case $argument in
      --) TRAIN=("$@") && return ;;
      --dry-run) DRY_RUN=true ;;
      --spot) SPOT=true ;;
      --reserved) RESERVED=true ;;
      --keep) KEEP=true ;;
      --*=*)
        name=${argument%%=*}
        name=${name#--}
        [[ " ${names[*]} " == *" $name "* ]] || die "--$name: no such option; there are ${names[*]/#/--}"
        printf -v "$(variable "$name")" '%s' "${argument#*=}"
        ;;
      *) die "$argument: expected --option=value, or -- before the arguments of uno_jax.train" ;;
    esac
  done
}

variable() { tr 'a-z-' 'A-Z_' <<<"$1"; }

# `need PROJECT "what it is"`: notes an option that was not given.
need() {
  local option
  option=--$(tr 'A-Z_' 'a-z-' <<<"$1")
  [[ -n ${!1} ]] || MISSING+=("$option: $2")
}

# `found "what is missing" ANSWER`: notes what was looked up and is not there.
found() { [[ -n $2 ]] || MISSING+=("$1"); }

# What uno_jax.train cannot do without. A workdir elsewhere would be lost with the slice.
need_train() {
  [[ " ${TRAIN[*]} " == *" --config="* ]] || MISSING+=("-- --config=FILE: what to train")
  [[ " ${TRAIN[*]} " == *" --workdir=/mnt/bucket/"* ]] || MISSING+=("-- --workdir=/mnt/bucket/DIR: where it goes")
}

# Ends the script if anything is missing, and says everything at once.
stop_if_missing() {
  ((${#MISSING[@]})) || return 0
  printf 'Missing, nothing was started:\n' >&2
  printf '  %s\n' "${MISSING[@]}" >&2
  exit 2
}

# Facts of a slice: `slice_facts v5e-16`. A v5p is named by its cores, of which a chip has two.
slice_facts() {
  local size=${1#*-}
  case $1 in
    v5e-4) TOPOLOGY=2x2 HOSTS=1 CHIPS_PER_HOST=4 ;;
    v5e-8) TOPOLOGY=2x4 HOSTS=1 CHIPS_PER_HOST=8 ;;
    v5e-16) TOPOLOGY=4x4 HOSTS=4 CHIPS_PER_HOST=4 ;;
    v5e-256) TOPOLOGY=16x16 HOSTS=64 CHIPS_PER_HOST=4 ;;
    v5p-16) TOPOLOGY=2x2x2 HOSTS=2 CHIPS_PER_HOST=4 ;;
    v6e-1) TOPOLOGY=1x1 HOSTS=1 CHIPS_PER_HOST=1 ;;
    v6e-4) TOPOLOGY=2x2 HOSTS=1 CHIPS_PER_HOST=4 ;;
    v6e-8) TOPOLOGY=2x4 HOSTS=1 CHIPS_PER_HOST=8 ;;
    v6e-16) TOPOLOGY=4x4 HOSTS=4 CHIPS_PER_HOST=4 ;;
    *) die "--slice=$1: expected v5e-4, v5e-8, v5e-16, v5e-256, v5p-16, v6e-1, v6e-4, v6e-8 or v6e-16" ;;
  esac
  local serving=''
  case $1 in
    v5e-*)
      ((size > 8)) || serving=Serving
      ACCELERATOR=v5litepod-$size RUNTIME=v2-alpha-tpuv5-lite GKE_ACCELERATOR=tpu-v5-lite-podslice
      QUOTA=TPUV5sLitepod${serving}PerProjectPerZoneForTPUAPI GKE_QUOTA=TPU-LITE-PODSLICE-V5
      QUOTA_SPOT=TPUV5sPreemptibleLitepod${serving}PerProjectPerZoneForTPUAPI
      ;;
    v5p-*)
      ACCELERATOR=$1 RUNTIME=v2-alpha-tpuv5 GKE_ACCELERATOR=tpu-v5p-slice
      QUOTA=TPUV5PPerProjectPerZoneForTPUAPI GKE_QUOTA=TPU-V5P
      QUOTA_SPOT=TPUV5PPreemptiblePerProjectPerZoneForTPUAPI
      ;;
    v6e-*)
      ACCELERATOR=$1 RUNTIME=v2-alpha-tpuv6e GKE_ACCELERATOR=tpu-v6e-slice
      QUOTA=TPUV6EPerProjectPerZoneForTPUAPI GKE_QUOTA=TPU-V6E
      QUOTA_SPOT=TPUV6EPreemptiblePerProjectPerZoneForTPUAPI
      ;;
  esac
  QUOTA_UNITS=$size # chips; of a v5p its cores
}

# `limit_in PLACE` reads lines `place place ..,limit` and prints the limit of the place; nothing where no line has it.
limit_in() {
  local places limit
  while IFS=, read -r places limit; do
    [[ " $places " != *" $1 "* ]] || printf '%s\n' "$limit"
  done
}

# `check_quota SERVICE QUOTA PLACE WANTED`: notes a quota that is too small. One that cannot be read is said and not
# counted as missing.
check_quota() {
  local limit
  limit=$(ask "$3,$4" gcloud beta quotas info list --service="$1" --project="$PROJECT" --filter="quotaId=$2" \
    --flatten='dimensionsInfos[]' \
    --format="csv[no-heading](dimensionsInfos.applicableLocations.list(separator=' '),dimensionsInfos.details.value)" |
    limit_in "$3" | head -n 1 || true)
  if [[ -z $limit ]]; then
    printf '%s\n' "quota $2 could not be read for $3: see IAM & Admin > Quotas in the console" >&2
  elif ((limit >= 0 && limit < $4)); then
    MISSING+=("quota $2 in $3: it is $limit, and this takes $4; ask for more in IAM & Admin > Quotas")
  fi
}

# The checks that both ways have in common: project, bucket, and whether directories can be renamed in it.
check_project_and_bucket() {
  local api=$1 enabled hierarchical
  found "--project=$PROJECT: no such project, or no access; gcloud auth login, gcloud projects list" \
    "$(ask "$PROJECT" gcloud projects describe "$PROJECT" --format='value(projectId)' || true)"
  enabled=$(ask "$api" gcloud services list --enabled --project="$PROJECT" --filter="config.name=$api" \
    --format='value(config.name)' || true)
  found "$api is not enabled: gcloud services enable $api --project=$PROJECT" "$enabled"
  found "--bucket=$BUCKET: no such bucket, or no access: gcloud storage buckets create gs://$BUCKET --project=$PROJECT \
--location=REGION --uniform-bucket-level-access --enable-hierarchical-namespace" \
    "$(ask "$BUCKET" gcloud storage buckets describe "gs://$BUCKET" --format='value(name)' || true)"
  hierarchical=$(ask True gcloud storage buckets describe "gs://$BUCKET" --raw \
    --format='value(hierarchicalNamespace.enabled)' || true)
  [[ $hierarchical == True ]] || printf '%s\n' "gs://$BUCKET has no hierarchical namespace: checkpoints are written \
under another name and renamed, which is slow there and not atomic; a new bucket can have one" >&2
}
