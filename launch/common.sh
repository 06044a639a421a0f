# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153 # variables shared with the scripts, or set by parse
# Common functions of the launch scripts: options, the table of slices, checks, and dry runs.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DRY_RUN=false
MISSING=()
exec 3>&1 # commands are printed here, even if their output is captured

die() {
  printf '%s\n' "$*" >&2
  exit 2
}

print_command() {
  printf '+' >&3
  printf ' %q' "$@" >&3
  printf '\n' >&3
}

# Prints a command in a form that can be pasted, and runs it unless this is a dry run.
run() {
  print_command "$@"
  $DRY_RUN || "$@"
}

# `ask ANSWER COMMAND..` runs a read-only command for its output. A dry run prints the command and outputs ANSWER.
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

# The comment at the top of a script is its usage. `--help` has precedence over all other arguments.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

for argument in "$@"; do
  [[ $argument != -- ]] || break
  if [[ $argument == --help || $argument == -h ]]; then
    usage
    exit 0
  fi
done

# `wait_for PID` returns its exit status. Unlike `wait`, it is not interrupted by trapped signals.
wait_for() {
  local status
  while :; do
    SIGNALLED=false status=0
    wait "$1" || status=$?
    $SIGNALLED || return "$status"
  done
}

# `parse NAMES.. -- ARGUMENTS..` sets a variable for each option, and TRAIN to the arguments after another `--`. NAMES
# ending in = are options with a value (default: empty). All others, and --dry-run, are true or false.
parse() {
  local options=(--dry-run) argument name
  DRY_RUN=false TRAIN=()
  while [[ $1 != -- ]]; do
    options+=("--$1")
    name=$(variable "${1%=}")
    if [[ $1 == *= ]]; then printf -v "$name" ''; else printf -v "$name" false; fi
    shift
  done
  shift
  while (($#)); do
    argument=$1
    shift
    [[ $argument != -- ]] || break
    [[ $argument == --?* ]] || die "$argument: expected --option=value, or -- and the arguments of uno_jax.train"
    name=${argument%%=*}
    if [[ $argument == *=* && " ${options[*]} " == *" $name= "* ]]; then
      printf -v "$(variable "${name#--}")" '%s' "${argument#*=}"
    elif [[ " ${options[*]} " == *" $argument "* ]]; then
      printf -v "$(variable "${name#--}")" true
    else
      die "$argument: unknown option. Expected one of ${options[*]}"
    fi
  done
  TRAIN=("$@")
}

variable() { tr 'a-z-' 'A-Z_' <<<"$1"; }

# `need PROJECT DESCRIPTION` records an option as missing if it has no value.
need() {
  local option
  option=--$(tr 'A-Z_' 'a-z-' <<<"$1")
  [[ -n ${!1} ]] || MISSING+=("$option: $2")
}

# `found PROBLEM ANSWER` records a problem if the answer of a look-up is empty.
found() { [[ -n $2 ]] || MISSING+=("$1"); }

# Checks the options of queued_resources.sh and gke.sh, after their defaults are set.
check_values() {
  BUCKET=${BUCKET#gs://}
  BUCKET=${BUCKET%/}
  [[ $BUCKET != */* ]] ||
    die "--bucket=$BUCKET: expected a bucket without a folder. The folder is part of --workdir=/mnt/bucket/FOLDER"
  [[ $NAME =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    die "--name=$NAME: expected at most 40 lower-case letters, digits and -, beginning with a letter, such as uno-2"
  [[ $SLICES =~ ^[1-9][0-9]*$ ]] || die "--slices=$SLICES: expected the number of slices, 1 or more"
  [[ $RESTARTS =~ ^(0|[1-9][0-9]*)$ ]] ||
    die "--restarts=$RESTARTS: expected the maximum number of restarts of a run that fails, 0 or more"
}

# Checks the required arguments of uno_jax.train. A workdir outside the bucket would be lost with the slice.
need_train() {
  [[ " ${TRAIN[*]} " == *" --config="* ]] || MISSING+=("-- --config=FILE: config of the run")
  [[ " ${TRAIN[*]} " == *" --workdir=/mnt/bucket/"* ]] || MISSING+=("-- --workdir=/mnt/bucket/DIR: its workdir")
}

# Exits if anything is missing, with everything in one message.
stop_if_missing() {
  ((${#MISSING[@]})) || return 0
  printf 'Nothing was started. Missing or invalid:\n' >&2
  printf '  %s\n' "${MISSING[@]}" >&2
  exit 2
}

# `slice_facts v5e-16` sets the properties of a slice. A v5p is named after its cores, two per chip. The number
# determines the topology; gcloud checks whether a zone offers it. HOSTS, CHIPS_PER_HOST and MACHINE are for GKE.
slice_facts() {
  local kind=${1%%-*} size=${1#*-} chips serving=''
  [[ $1 =~ ^(v5e|v5p|v6e)-[1-9][0-9]{0,4}$ ]] || no_slice "$1"
  case $kind in
    v5p) chips=$((size / 2)) TOPOLOGY=$(topology_3d "$size") ;;
    *) chips=$size TOPOLOGY=$(topology_2d "$size") ;;
  esac
  [[ -n $TOPOLOGY ]] || no_slice "$1"
  CHIPS_PER_HOST=$((chips > 1 ? 4 : 1))
  HOSTS=$((chips / CHIPS_PER_HOST))
  case $kind in
    v5e)
      ((size > 8)) || serving=Serving
      ACCELERATOR=v5litepod-$size RUNTIME=v2-alpha-tpuv5-lite
      GKE_ACCELERATOR=tpu-v5-lite-podslice MACHINE=ct5lp-hightpu-${CHIPS_PER_HOST}t
      QUOTA=TPUV5sLitepod${serving}PerProjectPerZoneForTPUAPI GKE_QUOTA=TPU-LITE-PODSLICE-V5
      QUOTA_SPOT=TPUV5sPreemptibleLitepod${serving}PerProjectPerZoneForTPUAPI
      ;;
    v5p)
      ACCELERATOR=$1 RUNTIME=v2-alpha-tpuv5 GKE_ACCELERATOR=tpu-v5p-slice MACHINE=ct5p-hightpu-4t
      QUOTA=TPUV5PPerProjectPerZoneForTPUAPI GKE_QUOTA=TPU-V5P
      QUOTA_SPOT=TPUV5PPreemptiblePerProjectPerZoneForTPUAPI
      ;;
    v6e)
      ACCELERATOR=$1 RUNTIME=v2-alpha-tpuv6e GKE_ACCELERATOR=tpu-v6e-slice MACHINE=ct6e-standard-${CHIPS_PER_HOST}t
      QUOTA=TPUV6EPerProjectPerZoneForTPUAPI GKE_QUOTA=TPU-V6E
      QUOTA_SPOT=TPUV6EPreemptiblePerProjectPerZoneForTPUAPI
      ;;
  esac
  QUOTA_UNITS=$size # chips, or cores of a v5p
}

no_slice() {
  die "--slice=$1: expected v5e-N or v6e-N with N chips (1, 4, 8, 16, 32, 64, 128, 256), or v5p-N with N cores (8, 16, \
32, 64, or a multiple of 128 up to 12288 that forms a box with sides of at most 256 chips)"
}

# Topology of a number of v5e or v6e chips. Prints nothing if there is no such slice.
topology_2d() {
  case $1 in
    1) echo 1x1 ;;
    4) echo 2x2 ;;
    8) echo 2x4 ;;
    16) echo 4x4 ;;
    32) echo 4x8 ;;
    64) echo 8x8 ;;
    128) echo 8x16 ;;
    256) echo 16x16 ;;
  esac
}

# Topology of a number of v5p cores: from 128 on, the most compact box of cubes of 4x4x4 chips. Prints nothing if there
# is no such slice.
topology_3d() {
  local a b cubes=$(($1 / 128)) box=''
  case $1 in
    8) echo 2x2x1 ;;
    16) echo 2x2x2 ;;
    32) echo 2x2x4 ;;
    64) echo 2x4x4 ;;
    *)
      (($1 % 128 == 0 && cubes <= 96)) || return 0
      for ((a = 1; a * a * a <= cubes; a++)); do
        for ((b = a; a * b * b <= cubes; b++)); do
          ((cubes % (a * b) || cubes / (a * b) > 64)) || box=$((4 * a))x$((4 * b))x$((4 * cubes / (a * b)))
        done
      done
      echo "$box"
      ;;
  esac
}

# `limit_in PLACE` reads lines `place place ..,limit` and prints the limit of the place, or nothing if it is not listed.
limit_in() {
  local places limit
  while IFS=, read -r places limit; do
    [[ " $places " != *" $1 "* ]] || printf '%s\n' "$limit"
  done
}

# `check_quota SERVICE QUOTA PLACE WANTED` records a quota as missing if it is too small. An unreadable quota is only a
# warning.
check_quota() {
  local limit
  limit=$(ask "$3,$4" gcloud beta quotas info list --service="$1" --project="$PROJECT" --filter="quotaId=$2" \
    --flatten='dimensionsInfos[]' \
    --format="csv[no-heading](dimensionsInfos.applicableLocations.list(separator=' '),dimensionsInfos.details.value)" |
    limit_in "$3" | head -n 1 || true)
  if [[ -z $limit ]]; then
    printf '%s\n' "warning: could not read quota $2 for $3. See IAM & Admin > Quotas in the console" >&2
  elif ((limit >= 0 && limit < $4)); then
    MISSING+=("quota $2 in $3: it is $limit, but $4 is needed. Request an increase in IAM & Admin > Quotas")
  fi
}

# Common checks of queued_resources.sh and gke.sh: project, API, bucket, and atomic renames in the bucket.
check_project_and_bucket() {
  local api=$1 enabled hierarchical
  found "--project=$PROJECT: no such project, or no access. Try gcloud auth login, gcloud projects list" \
    "$(ask "$PROJECT" gcloud projects describe "$PROJECT" --format='value(projectId)' || true)"
  enabled=$(ask "$api" gcloud services list --enabled --project="$PROJECT" --filter="config.name=$api" \
    --format='value(config.name)' || true)
  found "$api is not enabled: gcloud services enable $api --project=$PROJECT" "$enabled"
  found "--bucket=$BUCKET: no such bucket, or no access. To create it: gcloud storage buckets create gs://$BUCKET --project=$PROJECT \
--location=REGION --uniform-bucket-level-access --enable-hierarchical-namespace" \
    "$(ask "$BUCKET" gcloud storage buckets describe "gs://$BUCKET" --format='value(name)' || true)"
  hierarchical=$(ask True gcloud storage buckets describe "gs://$BUCKET" --raw \
    --format='value(hierarchicalNamespace.enabled)' || true)
  [[ $hierarchical == True ]] || printf '%s\n' "warning: gs://$BUCKET has no hierarchical namespace, so renaming a \
finished checkpoint is slow and not atomic. Only a new bucket can have one" >&2
}
