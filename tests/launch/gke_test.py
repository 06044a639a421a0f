"""GKE: the commands of a dry run, the JobSet and the image, and changes to the cluster."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import yaml

from tests.helpers.launch_scripts import GKE, LAUNCH, ROOT, TRAIN, call, failing_tools, printed


@pytest.fixture(scope="module")
def no_cloud(tmp_path_factory) -> Path:
    return failing_tools(tmp_path_factory.mktemp("tools"))


def test_a_dry_run_on_gke_prints_every_step_and_runs_none(no_cloud):
    steps = printed("gke.sh", "up", *GKE, *TRAIN, path=no_cloud)
    assert [" ".join(step.split()[:2]) for step in steps] == [
        *("gcloud projects", "gcloud services", "gcloud storage", "gcloud storage", "gcloud artifacts"),
        *("gcloud container", "gcloud container", "kubectl get", "kubectl get"),
        *("docker build", "docker push"),
        *("kubectl get", "kubectl apply", "kubectl get", "mkdir logs/uno", "bash kubectl\\"),
    ]


@pytest.mark.parametrize(
    "command", ["check", "cluster", "image", "manifest", "run", "wait", "status", "logs", "delete"]
)
def test_every_command_of_gke_can_be_run_alone(no_cloud, command):
    call(LAUNCH / "gke.sh", command, "--dry-run", *GKE, *TRAIN, path=no_cloud)


# The container and the JobSet


def jobset(*arguments: str) -> dict:
    text = call(LAUNCH / "gke.sh", "manifest", *GKE, *arguments, *TRAIN, '--config.note=say "a\\b"').stdout
    assert "${" not in text
    return yaml.safe_load(text)


def test_a_jobset_has_a_job_per_slice_and_a_pod_per_host():
    manifest = jobset("--slices=2", "--name=big")
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert manifest["metadata"]["name"] == "big"
    topology = "alpha.jobset.sigs.k8s.io/exclusive-topology"
    assert manifest["metadata"]["annotations"][topology] == "cloud.google.com/gke-nodepool"
    [job] = manifest["spec"]["replicatedJobs"]
    assert job["replicas"] == 2
    spec = job["template"]["spec"]
    assert (spec["parallelism"], spec["completions"], spec["completionMode"]) == (4, 4, "Indexed")


def test_strings_that_look_like_numbers_stay_strings():
    manifest = jobset("--namespace=12", "--bucket=2024", "--service-account=7")
    volume = pod(manifest)["volumes"][0]
    assert manifest["metadata"]["namespace"] == "12"
    assert volume["csi"]["volumeAttributes"]["bucketName"] == "2024"
    assert pod(manifest)["serviceAccountName"] == "7"


def pod(manifest: dict) -> dict:
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("name", "accelerator", "topology", "hosts", "chips"),
    [
        ("v5e-4", "tpu-v5-lite-podslice", "2x2", 1, 4),
        ("v5e-8", "tpu-v5-lite-podslice", "2x4", 2, 4),  # with xpk; a queued resource has one host of 8
        ("v5e-32", "tpu-v5-lite-podslice", "4x8", 8, 4),
        ("v5e-256", "tpu-v5-lite-podslice", "16x16", 64, 4),
        ("v5p-8", "tpu-v5p-slice", "2x2x1", 1, 4),
        ("v5p-32", "tpu-v5p-slice", "2x2x4", 4, 4),
        ("v5p-128", "tpu-v5p-slice", "4x4x4", 16, 4),
        ("v5p-384", "tpu-v5p-slice", "4x4x12", 48, 4),
        ("v5p-2048", "tpu-v5p-slice", "8x8x16", 256, 4),
        ("v5p-12288", "tpu-v5p-slice", "16x16x24", 1536, 4),
        ("v6e-1", "tpu-v6e-slice", "1x1", 1, 1),
        ("v6e-128", "tpu-v6e-slice", "8x16", 32, 4),
    ],
)
def test_a_pod_requests_the_chips_of_its_host(name, accelerator, topology, hosts, chips):
    manifest = jobset(f"--slice={name}")
    selector, [container] = pod(manifest)["nodeSelector"], pod(manifest)["containers"]
    assert selector["cloud.google.com/gke-tpu-accelerator"] == accelerator
    assert selector["cloud.google.com/gke-tpu-topology"] == topology
    assert manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["completions"] == hosts
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"google.com/tpu": chips}


def test_a_pod_trains_from_the_image_with_the_bucket_mounted():
    spec = pod(jobset())
    [container] = spec["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("us-docker.pkg.dev/p/r/uno:1", "Always")
    assert container["args"] == [*TRAIN[1:], '--config.note=say "a\\b"']
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert mounts["bucket"] == "/mnt/bucket"
    assert volumes["bucket"]["csi"]["volumeAttributes"]["bucketName"] == "b"
    assert volumes["bucket"]["csi"]["driver"] == "gcsfuse.csi.storage.gke.io"


def test_a_jobset_restarts_after_failures_and_does_not_count_preemptions():
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


def test_spot_selects_spot_nodes():
    selector = "cloud.google.com/gke-spot"
    assert pod(jobset("--spot"))["nodeSelector"][selector] == "true"
    assert selector not in pod(jobset())["nodeSelector"]


def test_the_image_copies_existing_files_and_starts_the_training_program():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    kept = {line[1:] for line in (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert copied == kept == {"requirements.txt", "requirements-tpu.txt", "uno_jax", "configs"}
    assert all((ROOT / name).exists() for name in copied)
    assert lines[-1] == 'ENTRYPOINT ["python", "-m", "uno_jax.train"]'


# Changes to a cluster. The fake tools keep the state of the JobSet in a file and record their calls.

GCLOUD = """#!/bin/bash
echo "gcloud $*" >>calls
case "$*" in
  *clusters\\ list*) cat location ;;
  *) echo True ;;
esac
"""
KUBECTL = """#!/bin/bash
echo "kubectl $*" >>calls
case "$*" in
  *get\\ jobset*) [[ ! -f jobset ]] || echo "JobSet $(cat jobset)" ;;
  *get\\ nodes*) cat nodes ;;
  *get*) echo there ;;
  *delete\\ jobset*) rm jobset ;;
  *apply*) [[ -f jobset ]] || echo Completed >jobset ;;
esac
"""


def cluster(folder: Path, *, location: str = "us-west4", nodes: int = 4, jobset: str | None = None) -> Path:
    """Creates fake tools for a cluster at `location` (empty: there is none).

    `jobset` is the terminal state of its JobSet: empty if it is running, None if there is none.
    """
    (folder / "nodes").write_text("node\n" * nodes)
    (folder / "location").write_text(f"{location}\n" if location else "")
    if jobset is not None:
        (folder / "jobset").write_text(jobset)
    for name, text in (("gcloud", GCLOUD), ("kubectl", KUBECTL), ("docker", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def launch(folder: Path, command: str, *arguments: str, check: int = 0) -> tuple[list[str], str]:
    """Runs a command of the script. Returns the calls of the tools and the standard error."""
    done = call(LAUNCH / "gke.sh", command, *GKE, *arguments, *TRAIN, cwd=folder, path=folder, check=check)
    return (folder / "calls").read_text().splitlines(), done.stderr


@pytest.mark.parametrize("location", ["us-west4", "us-west4-a"])
def test_a_cluster_is_found_in_its_region_or_its_zone(tmp_path, location):
    calls, _ = launch(cluster(tmp_path, location=location), "up")
    [credentials] = [line for line in calls if "get-credentials" in line]
    assert credentials.endswith(f"c --location={location} --project=p")
    contexts = {line.split()[1] for line in calls if line.startswith("kubectl")}
    assert contexts == {f"--context=gke_p_{location}_c"}


def test_a_slice_not_supported_by_xpk_is_rejected_with_another_command(no_cloud):
    done = call(LAUNCH / "gke.sh", "cluster", *GKE, "--slice=v5e-4", path=no_cloud, check=2)
    assert "node-pools create v5e-4" in done.stderr
    assert "--machine-type=ct5lp-hightpu-4t" in done.stderr
    assert "called" not in done.stderr


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_missing_cluster_is_named_before_anything_is_started(tmp_path, command):
    calls, message = launch(cluster(tmp_path, location=""), command, check=2)
    assert "--cluster=c: not in us-west4-a or its region" in message
    assert not [line for line in calls if line.startswith("kubectl")]


def test_a_dry_run_assumes_the_location_used_by_xpk(no_cloud):
    done = call(LAUNCH / "gke.sh", "check", "--dry-run", *GKE, path=no_cloud)
    assert "get-credentials c --location=us-west4 " in done.stdout
    assert "--context=gke_p_us-west4_c" in done.stdout


def test_a_cluster_without_nodes_is_a_warning_and_the_run_is_started(tmp_path):
    calls, message = launch(cluster(tmp_path, nodes=0), "up")
    assert "no tpu-v5-lite-podslice 4x4 nodes at the moment" in message
    assert changes(calls) == ["apply"]


def changes(calls: list[str]) -> list[str]:
    """The changes of the JobSet among the calls."""
    return [word for line in calls for word in line.split()[3:4] if word in ("apply", "delete")]


@pytest.mark.parametrize("state", ["Failed", "Completed"])
def test_a_run_that_has_ended_is_restarted(tmp_path, state):
    calls, _ = launch(cluster(tmp_path, jobset=state), "up")  # the exit status is that of the new run
    assert changes(calls) == ["delete", "apply"]
    [delete] = [line for line in calls if "delete" in line]
    assert delete.endswith("delete jobset uno --cascade=foreground --wait")


@pytest.mark.parametrize("state", [None, ""])
def test_a_run_that_has_not_ended_is_not_deleted(tmp_path, state):
    calls, _ = launch(cluster(tmp_path, jobset=state), "run")
    assert changes(calls) == ["apply"]


@pytest.mark.parametrize(("state", "status"), [("Completed", 0), ("Failed", 1)])
def test_the_exit_status_of_wait_is_that_of_the_run(tmp_path, state, status):
    launch(cluster(tmp_path, jobset=state), "wait", check=status)


def test_waiting_for_a_missing_run_is_an_error(tmp_path):
    _, message = launch(cluster(tmp_path), "wait", check=2)
    assert "there is no JobSet uno in the namespace default" in message
