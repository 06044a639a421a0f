"""GKE: what a dry run prints, the JobSet and the image, and what is done to the cluster."""

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
def test_every_step_on_gke_can_be_taken_alone(no_cloud, command):
    call(LAUNCH / "gke.sh", command, "--dry-run", *GKE, *TRAIN, path=no_cloud)


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


def test_what_looks_like_a_number_stays_a_string():
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
        ("v5e-8", "tpu-v5-lite-podslice", "2x4", 2, 4),  # as xpk makes it; a queued resource is one host of 8
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
    assert (container["image"], container["imagePullPolicy"]) == ("us-docker.pkg.dev/p/r/uno:1", "Always")
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


# What is done to a cluster. The stand-ins keep the state of the JobSet in a file, and note what they are called with.

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
    """A stand-in for a cluster at a location, with a JobSet that has ended so, or not yet (""), if there is one."""
    (folder / "nodes").write_text("node\n" * nodes)
    (folder / "location").write_text(f"{location}\n" if location else "")
    if jobset is not None:
        (folder / "jobset").write_text(jobset)
    for name, text in (("gcloud", GCLOUD), ("kubectl", KUBECTL), ("docker", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def launch(folder: Path, command: str, *arguments: str, check: int = 0) -> tuple[list[str], str]:
    """What the tools were called with, and what was said on standard error."""
    done = call(LAUNCH / "gke.sh", command, *GKE, *arguments, *TRAIN, cwd=folder, path=folder, check=check)
    return (folder / "calls").read_text().splitlines(), done.stderr


@pytest.mark.parametrize("location", ["us-west4", "us-west4-a"])
def test_a_cluster_is_found_in_its_region_or_its_zone(tmp_path, location):
    calls, _ = launch(cluster(tmp_path, location=location), "up")
    [credentials] = [line for line in calls if "get-credentials" in line]
    assert credentials.endswith(f"c --location={location} --project=p")
    contexts = {line.split()[1] for line in calls if line.startswith("kubectl")}
    assert contexts == {f"--context=gke_p_{location}_c"}


def test_a_slice_that_xpk_does_not_make_is_refused_with_the_command_that_does(no_cloud):
    done = call(LAUNCH / "gke.sh", "cluster", *GKE, "--slice=v5e-4", path=no_cloud, check=2)
    assert "node-pools create v5e-4" in done.stderr
    assert "--machine-type=ct5lp-hightpu-4t" in done.stderr
    assert "called" not in done.stderr


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_cluster_that_is_not_there_is_named_and_nothing_is_started(tmp_path, command):
    calls, said = launch(cluster(tmp_path, location=""), command, check=2)
    assert "--cluster=c: not in us-west4-a or its region" in said
    assert not [line for line in calls if line.startswith("kubectl")]


def test_a_dry_run_takes_the_cluster_to_be_where_xpk_makes_it(no_cloud):
    done = call(LAUNCH / "gke.sh", "check", "--dry-run", *GKE, path=no_cloud)
    assert "get-credentials c --location=us-west4 " in done.stdout
    assert "--context=gke_p_us-west4_c" in done.stdout


def test_a_cluster_without_nodes_at_the_moment_is_said_and_the_run_is_started(tmp_path):
    calls, said = launch(cluster(tmp_path, nodes=0), "up")
    assert "no node of tpu-v5-lite-podslice, 4x4 now" in said
    assert changes(calls) == ["apply"]


def changes(calls: list[str]) -> list[str]:
    """What was done to the JobSet, beyond being looked at."""
    return [word for line in calls for word in line.split()[3:4] if word in ("apply", "delete")]


@pytest.mark.parametrize("state", ["Failed", "Completed"])
def test_a_run_that_has_ended_is_started_again(tmp_path, state):
    calls, _ = launch(cluster(tmp_path, jobset=state), "up")  # its status is that of the new run
    assert changes(calls) == ["delete", "apply"]
    [delete] = [line for line in calls if "delete" in line]
    assert delete.endswith("delete jobset uno --cascade=foreground --wait")


@pytest.mark.parametrize("state", [None, ""])
def test_a_run_that_has_not_ended_is_left_alone(tmp_path, state):
    calls, _ = launch(cluster(tmp_path, jobset=state), "run")
    assert changes(calls) == ["apply"]


@pytest.mark.parametrize(("state", "status"), [("Completed", 0), ("Failed", 1)])
def test_waiting_ends_as_the_run_does(tmp_path, state, status):
    launch(cluster(tmp_path, jobset=state), "wait", check=status)


def test_waiting_for_a_run_that_is_not_there_ends_and_says_so(tmp_path):
    _, said = launch(cluster(tmp_path), "wait", check=2)
    assert "there is no JobSet uno in the namespace default" in said
