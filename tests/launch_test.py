"""The launch scripts: what a dry run prints, what they say is missing, and what they do when a run is stopped."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
TRAIN = ("--", "--config=configs/bagel_7b_uno.py", "--workdir=/mnt/bucket/runs/uno")
TPU = ("--project=p", "--zone=us-west4-a", "--bucket=b", "--slice=v5e-16")
GKE = (*TPU, "--cluster=c", "--image=us-docker.pkg.dev/p/r/uno:1")
CLOUD_TOOLS = ("gcloud", "kubectl", "docker", "xpk", "gcsfuse")


def call(
    *command: object, cwd: Path = ROOT, path: Path | None = None, check: int | None = 0
) -> subprocess.CompletedProcess:
    """The outcome of a command, of the expected status."""
    environment = os.environ | {"POLL_SECONDS": "0"}
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert check is None or done.returncode == check, done.stderr
    return done


@pytest.fixture(scope="module")
def no_cloud(tmp_path_factory) -> Path:
    """A folder of tools that fail, so that a command which should only be printed is noticed."""
    folder = tmp_path_factory.mktemp("tools")
    for name in CLOUD_TOOLS:
        (folder / name).write_text("#!/bin/sh\necho called: $0 $* >&2\nexit 99\n")
        (folder / name).chmod(0o755)
    return folder


def printed(script: str, *arguments: str, path: Path) -> list[str]:
    """The commands that a dry run prints, the tools' name and what it does to what, flags left out."""
    done = call(LAUNCH / script, arguments[0], "--dry-run", *arguments[1:], path=path)
    assert "called" not in done.stderr
    commands = [line[2:] for line in done.stdout.splitlines() if line.startswith("+ ")]
    return [" ".join(word for word in command.split() if not word.startswith("-")) for command in commands]


def test_shellcheck_finds_nothing():
    call(Path(sys.executable).parent / "shellcheck", "-x", *SCRIPTS)


QUEUED = "gcloud compute tpus queued-resources"


def test_a_dry_run_of_a_queued_resource_prints_every_step_and_runs_none(no_cloud):
    steps = printed("queued_resources.sh", "up", *TPU, "--spot", *TRAIN, path=no_cloud)
    assert [step.removeprefix(QUEUED).split()[0] for step in steps] == [
        *["gcloud"] * 6,  # project, API, bucket and its kind, TPU type in the zone, quota
        *("describe", "create", "describe"),
        *("git", "scp", "ssh"),  # install
        *("ssh", "describe", "ssh"),  # run, and ask until it has ended
        *("mkdir", "ssh", "delete"),  # logs
    ]


@pytest.mark.parametrize("command", ["check", "create", "wait", "install", "run", "status", "logs", "delete"])
def test_every_step_of_a_queued_resource_can_be_taken_alone(no_cloud, command):
    assert printed("queued_resources.sh", command, *TPU, *TRAIN, path=no_cloud)


def test_slices_are_asked_for_by_type_runtime_and_number(no_cloud):
    def create(*arguments: str) -> str:
        output = call(LAUNCH / "queued_resources.sh", "create", "--dry-run", *TPU, *arguments, path=no_cloud).stdout
        return output.splitlines()[-1]

    assert "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --node-id=uno-0" in create()
    assert "--accelerator-type=v5p-16 --runtime-version=v2-alpha-tpuv5 " in create("--slice=v5p-16")
    assert "--node-count=2 --node-prefix=big" in create("--slices=2", "--name=big")
    assert "--spot" in create("--spot")
    assert "--reserved" in create("--reserved")


def test_a_dry_run_on_gke_prints_every_step_and_runs_none(no_cloud):
    steps = printed("gke.sh", "up", *GKE, *TRAIN, path=no_cloud)
    assert [" ".join(step.split()[:2]) for step in steps] == [
        *("gcloud projects", "gcloud services", "gcloud storage", "gcloud storage", "gcloud artifacts"),
        *("gcloud container", "kubectl get", "kubectl get"),
        *("docker build", "docker push"),
        *("kubectl apply", "kubectl get", "mkdir logs/uno", "bash kubectl\\"),
    ]


@pytest.mark.parametrize(
    "command", ["check", "cluster", "image", "manifest", "run", "wait", "status", "logs", "delete"]
)
def test_every_step_on_gke_can_be_taken_alone(no_cloud, command):
    call(LAUNCH / "gke.sh", command, "--dry-run", *GKE, *TRAIN, path=no_cloud)


@pytest.mark.parametrize("script", ["queued_resources.sh", "gke.sh"])
def test_everything_that_is_missing_is_named_before_anything_is_started(no_cloud, script):
    done = call(LAUNCH / script, "up", path=no_cloud, check=2)
    for option in ("--project", "--zone", "--bucket", "--slice", "-- --config", "-- --workdir=/mnt/bucket"):
        assert f"  {option}" in done.stderr
    assert "called" not in done.stderr


@pytest.mark.parametrize("script", ["queued_resources.sh", "gke.sh"])
def test_a_workdir_that_would_be_lost_with_the_slice_is_refused(no_cloud, script):
    arguments = (*GKE[:5], "--image=i") if script == "gke.sh" else TPU
    done = call(LAUNCH / script, "run", *arguments, "--", "--config=c", "--workdir=runs/uno", path=no_cloud, check=2)
    assert "--workdir=/mnt/bucket" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--slice=v9-3",), "expected v5e-4"),
        (("--colour=red",), "no such option"),
        (("fast",), "expected --option=value"),
    ],
)
def test_options_that_mean_nothing_are_refused(no_cloud, arguments, message):
    done = call(LAUNCH / "queued_resources.sh", "create", *TPU, *arguments, path=no_cloud, check=2)
    assert message in done.stderr


def test_no_script_deletes_data():
    for script in SCRIPTS:
        text = script.read_text()
        assert not re.search(r"storage (rm|rsync|mv|buckets delete)|gsutil|rm -r|clusters delete", text), script


# The container and the JobSet


def jobset(*arguments: str) -> dict:
    text = call(LAUNCH / "gke.sh", "manifest", *GKE, *arguments, *TRAIN, '--config.note=say "a\\b"').stdout
    assert "${" not in text
    return yaml.safe_load(text)


def test_a_jobset_has_a_job_for_each_slice_and_a_pod_for_each_host():
    manifest = jobset("--slices=2", "--name=big")
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert manifest["metadata"]["name"] == "big"
    topology = "alpha.jobset.sigs.k8s.io/exclusive-topology"
    assert manifest["metadata"]["annotations"][topology] == "cloud.google.com/gke-nodepool"
    [job] = manifest["spec"]["replicatedJobs"]
    assert job["replicas"] == 2
    spec = job["template"]["spec"]
    assert (spec["parallelism"], spec["completions"], spec["completionMode"]) == (4, 4, "Indexed")


def pod(manifest: dict) -> dict:
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("name", "accelerator", "topology", "hosts", "chips"),
    [
        ("v5e-4", "tpu-v5-lite-podslice", "2x2", 1, 4),
        ("v5e-8", "tpu-v5-lite-podslice", "2x4", 1, 8),
        ("v5e-256", "tpu-v5-lite-podslice", "16x16", 64, 4),
        ("v5p-16", "tpu-v5p-slice", "2x2x2", 2, 4),
        ("v6e-16", "tpu-v6e-slice", "4x4", 4, 4),
    ],
)
def test_a_pod_asks_for_the_chips_of_its_host(name, accelerator, topology, hosts, chips):
    manifest = jobset(f"--slice={name}")
    selector, [container] = pod(manifest)["nodeSelector"], pod(manifest)["containers"]
    assert selector["cloud.google.com/gke-tpu-accelerator"] == accelerator
    assert selector["cloud.google.com/gke-tpu-topology"] == topology
    assert manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["completions"] == hosts
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"google.com/tpu": chips}


def test_a_pod_trains_from_the_image_with_the_bucket_mounted():
    spec = pod(jobset())
    [container] = spec["containers"]
    assert container["image"] == "us-docker.pkg.dev/p/r/uno:1"
    assert container["args"] == [*TRAIN[1:], '--config.note=say "a\\b"']
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert mounts["bucket"] == "/mnt/bucket"
    assert volumes["bucket"]["csi"]["volumeAttributes"]["bucketName"] == "b"
    assert volumes["bucket"]["csi"]["driver"] == "gcsfuse.csi.storage.gke.io"


def test_a_jobset_starts_again_after_failures_and_does_not_count_preemptions():
    spec = jobset("--restarts=3")["spec"]
    assert spec["failurePolicy"]["maxRestarts"] == 3
    [rule] = spec["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    disrupted, stopped = job["podFailurePolicy"]["rules"]
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert stopped["onExitCodes"]["values"] == [128 + signal.SIGTERM]
    assert stopped["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]


def test_spot_nodes_are_chosen_where_asked_for():
    selector = "cloud.google.com/gke-spot"
    assert pod(jobset("--spot"))["nodeSelector"][selector] == "true"
    assert selector not in pod(jobset())["nodeSelector"]


def test_the_image_copies_what_is_there_and_starts_the_training_program():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    kept = {line[1:] for line in (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert copied == kept == {"requirements.txt", "requirements-tpu.txt", "uno_jax", "configs"}
    assert all((ROOT / name).exists() for name in copied)
    assert lines[-1] == 'ENTRYPOINT ["python", "-m", "uno_jax.train"]'


# What is done when a run ends


def project(folder: Path, program: str) -> Path:
    """A project with the launch scripts and another training program."""
    shutil.copytree(LAUNCH, folder / "launch")
    (folder / "uno_jax").mkdir()
    (folder / "uno_jax" / "train.py").write_text(program)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    return folder


RECORD = "import sys; sys.path.pop(0); print('arguments', sys.argv[1:])\n"
UNTIL_TOLD = """
import pathlib, signal, sys, time
def stop(*_):
    time.sleep(0.3)
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("started" + sys.argv[-1].rsplit("=")[-1]).touch()
time.sleep(30)
"""


def wait_for(*files: Path) -> None:
    end = time.monotonic() + 20
    while not all(file.exists() for file in files):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("status", [0, 3])
def test_a_host_notes_how_its_run_ended(tmp_path, status):
    folder = project(tmp_path, f"{RECORD}sys.exit({status})")
    call("launch/start_host.sh", "--here", "--config=a b", cwd=folder)
    assert call("launch/start_host.sh", "--state", cwd=folder).stdout == f"{status}\n"
    assert (folder / "run.log").read_text() == "arguments ['--config=a b']\n"


def test_a_host_that_is_told_to_stop_waits_until_the_run_has_saved(tmp_path):
    folder = project(tmp_path, UNTIL_TOLD)
    with subprocess.Popen(["launch/start_host.sh", "--here", "--x=1"], cwd=folder, start_new_session=True) as host:
        wait_for(folder / "started1")
        os.killpg(host.pid, signal.SIGTERM)
        assert host.wait(20) == 0
    assert (folder / "run.status").read_text() == "143\n"
    assert (folder / "run.log").read_text() == "saved\n"


LOCAL = ("--port=1234", f"--python={sys.executable}", "--", "--config=c", "--workdir=w")


def test_local_processes_have_the_arguments_of_a_host_and_their_number(tmp_path):
    folder = project(tmp_path, RECORD)
    done = call("launch/local_multihost.sh", "2", "--devices=4", *LOCAL, cwd=folder)
    for number in range(2):
        flags = ["--coordinator=localhost:1234", "--processes=2", f"--process={number}", "--config=c", "--workdir=w"]
        assert f"[{number}] arguments {flags}" in done.stdout
        assert f"--process={number}" in done.stdout
    assert "--xla_force_host_platform_device_count=4" in done.stdout


def test_the_status_of_local_processes_is_the_first_that_failed(tmp_path):
    folder = project(tmp_path, "import sys; sys.exit(7 * ('--process=1' in sys.argv))")
    call("launch/local_multihost.sh", "3", *LOCAL, cwd=folder, check=7)


def test_a_signal_reaches_all_local_processes_and_they_may_end_in_peace(tmp_path):
    folder = project(tmp_path, UNTIL_TOLD.replace("sys.argv[-1]", "sys.argv[3]"))
    command = ["launch/local_multihost.sh", "2", *LOCAL]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as script:
        wait_for(folder / "started0", folder / "started1")
        script.terminate()
        output, _ = script.communicate(timeout=20)
    assert script.returncode == 143
    assert sorted(line for line in output.splitlines() if "saved" in line) == ["[0] saved", "[1] saved"]


# Each line is one answer: to `describe` the state of the slice, to `--state` that of the run.
CLOUD = """#!/bin/bash
echo "gcloud $*" >>calls
case "$*" in
  *quotas*) echo "us-west4-a us-west4-b,$(cat quota)" ;;
  *describe\\ uno*) head -n 1 slice; sed -i 1d slice ;;
  *--state*) head -n 1 run; sed -i 1d run ;;
  *describe*|*list*) echo True ;;
esac
"""


def cloud(folder: Path, slice_states: list[str], run_states: list[str], quota: int = 16) -> Path:
    """A stand-in for Google Cloud, whose answers are given."""
    for name, lines in (("slice", slice_states), ("run", run_states), ("quota", [str(quota)])):
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    (folder / "gcloud").write_text(CLOUD)
    (folder / "gcloud").chmod(0o755)
    return folder


def steps_taken(folder: Path) -> list[str]:
    calls = (folder / "calls").read_text().splitlines()
    names = {"create": "create", "start_host.sh --config": "run", "delete": "delete"}
    return [name for line in calls for key, name in names.items() if f"{key}" in line.replace("\\", "")]


def launch(folder: Path, *arguments: str, check: int) -> subprocess.CompletedProcess:
    script = LAUNCH / "queued_resources.sh"
    return call(script, "up", *TPU, *arguments, *TRAIN, cwd=folder, path=folder, check=check)


def test_a_preempted_run_goes_on_from_its_checkpoint_on_a_new_slice(tmp_path):
    slices = ["", "PROVISIONING", "ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDING", "SUSPENDED", "ACTIVE", "ACTIVE"]
    folder = cloud(tmp_path, slices, ["running", "0"])
    launch(folder, "--restarts=0", check=0)
    assert steps_taken(folder) == ["create", "run", "delete", "create", "run", "delete"]


def test_a_run_that_was_told_to_stop_goes_on_where_it_is(tmp_path):
    folder = cloud(tmp_path, ["", *["ACTIVE"] * 5], ["143", "0"])
    launch(folder, "--restarts=0", "--keep", check=0)
    assert steps_taken(folder) == ["create", "run", "run"]


def test_a_run_that_fails_is_started_again_as_often_as_allowed(tmp_path):
    folder = cloud(tmp_path, ["", *["ACTIVE"] * 5], ["1", "1"])
    done = launch(folder, "--restarts=1", check=1)
    assert steps_taken(folder) == ["create", "run", "run", "delete"]
    assert "failure 2 of at most 1" in done.stdout


def test_arguments_reach_every_host_word_by_word(tmp_path):
    folder = cloud(tmp_path, [], [])
    call(LAUNCH / "queued_resources.sh", "run", *TPU, *TRAIN, "--config.note=a 'b", cwd=folder, path=folder)
    command = (folder / "calls").read_text().partition("--command=")[2]
    assert shlex.split(command)[1:4] == [*TRAIN[1:], "--config.note=a 'b"]


def test_a_quota_that_is_too_small_is_named_and_nothing_is_created(tmp_path):
    folder = cloud(tmp_path, [], [], quota=8)
    done = launch(folder, check=2)
    assert "TPUV5sLitepodPerProjectPerZoneForTPUAPI in us-west4-a: it is 8, and this takes 16" in done.stderr
    assert steps_taken(folder) == []
