# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153 # what the scripts read, and what they and parse set
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

# The comment at the head of a script is its usage: `--help`, before any other argument is looked at.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

for argument in "$@"; do
  [[ $argument != -- ]] || break
  if [[ $argument == --help || $argument == -h ]]; then
    usage
    exit 0
  fi
done

# `wait_for PID`: its exit status. A signal that is trapped ends `wait`, and not this.
wait_for() {
  local status
  while :; do
    SIGNALLED=false status=0
    wait "$1" || status=$?
    $SIGNALLED || return "$status"
  done
}

# `parse NAMES.. -- ARGUMENTS..` sets a variable for each option, and TRAIN to what follows a `--` of its own. NAMES end
# in = for options with a value, by default empty; others, and --dry-run, have none and are true or false.
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
    [[ $argument == --?* ]] || die "$argument: expected --option=value, or -- before the arguments of uno_jax.train"
    name=${argument%%=*}
    if [[ $argument == *=* && " ${options[*]} " == *" $name= "* ]]; then
      printf -v "$(variable "${name#--}")" '%s' "${argument#*=}"
    elif [[ " ${options[*]} " == *" $argument "* ]]; then
      printf -v "$(variable "${name#--}")" true
    else
      die "$argument: no such option; there are ${options[*]}"
    fi
  done
  TRAIN=("$@")
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

# Checks of values that both ways have, after their defaults.
check_values() {
  BUCKET=${BUCKET#gs://}
  BUCKET=${BUCKET%/}
  [[ $BUCKET != */* ]] ||
    die "--bucket=$BUCKET: expected a bucket, not a folder in it; that is said by --workdir=/mnt/bucket/FOLDER"
  [[ $NAME =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    die "--name=$NAME: expected a letter and then letters, digits and -, all small, at most 40, as uno-2"
  [[ $SLICES =~ ^[1-9][0-9]*$ ]] || die "--slices=$SLICES: expected the number of slices, 1 or more"
  [[ $RESTARTS =~ ^(0|[1-9][0-9]*)$ ]] ||
    die "--restarts=$RESTARTS: expected how often a run that fails is started again"
}

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

# Facts of a slice: `slice_facts v5e-16`. A v5p is named by its cores, of which a chip has two. The number says what the
# topology is; whether a zone has it, gcloud says. HOSTS, CHIPS_PER_HOST and MACHINE are those of GKE as xpk uses it.
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
  QUOTA_UNITS=$size # chips; of a v5p its cores
}

no_slice() {
  die "--slice=$1: expected v5e-N or v6e-N of N chips (1, 4, 8, 16, 32, 64, 128, 256), or v5p-N of N cores (8, 16, 32, \
64, or a multiple of 128 up to 12288 that makes a box with no side over 256)"
}

# What a number of chips of v5e and v6e is; nothing where there is no such slice.
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

# What a number of cores of v5p is: from 128 on the most compact box of cubes of 4x4x4 chips. Nothing where there is no
# such slice.
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
