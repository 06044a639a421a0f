"""Launch scripts: the commands of a dry run, messages about missing options, and reactions to the end of a run."""

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

from tests.helpers.launch_scripts import GKE, LAUNCH, TPU, TRAIN, call, failing_tools, printed

SCRIPTS = sorted(LAUNCH.glob("*.sh"))
PROGRAMS = [script for script in SCRIPTS if script.name != "common.sh"]


@pytest.fixture(scope="module")
def no_cloud(tmp_path_factory) -> Path:
    return failing_tools(tmp_path_factory.mktemp("tools"))


def test_shellcheck_finds_nothing():
    call(Path(sys.executable).parent / "shellcheck", "-x", *SCRIPTS)


QUEUED = "gcloud compute tpus queued-resources"


def test_a_dry_run_of_a_queued_resource_prints_every_step_and_runs_none(no_cloud):
    steps = printed("queued_resources.sh", "up", *TPU, "--spot", *TRAIN, path=no_cloud)
    assert [step.removeprefix(QUEUED).split()[0] for step in steps] == [
        *["gcloud"] * 6,  # project, API, bucket and its kind, TPU type in the zone, quota
        *("describe", "create", "describe"),
        *("git", "scp", "ssh"),  # install
        *("ssh", "describe", "ssh"),  # run, and poll until it has ended
        *("mkdir", "ssh", "delete"),  # logs
    ]


@pytest.mark.parametrize("command", ["check", "create", "wait", "install", "run", "status", "logs", "delete"])
def test_every_command_of_queued_resources_can_be_run_alone(no_cloud, command):
    assert printed("queued_resources.sh", command, *TPU, *TRAIN, path=no_cloud)


def test_slices_are_requested_by_type_runtime_and_number(no_cloud):
    def create(*arguments: str) -> str:
        output = call(LAUNCH / "queued_resources.sh", "create", "--dry-run", *TPU, *arguments, path=no_cloud).stdout
        return output.splitlines()[-1]

    assert "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --node-id=uno-0" in create()
    assert "--accelerator-type=v5p-16 --runtime-version=v2-alpha-tpuv5 " in create("--slice=v5p-16")
    assert "--accelerator-type=v6e-256 --runtime-version=v2-alpha-tpuv6e " in create("--slice=v6e-256")
    assert "--node-count=2 --node-prefix=big" in create("--slices=2", "--name=big")
    assert "--spot" in create("--spot")
    assert "--reserved" in create("--reserved")


@pytest.mark.parametrize("script", ["queued_resources.sh", "gke.sh"])
def test_all_missing_options_are_named_before_anything_is_started(no_cloud, script):
    done = call(LAUNCH / script, "up", path=no_cloud, check=2)
    for option in ("--project", "--zone", "--bucket", "--slice", "-- --config", "-- --workdir=/mnt/bucket"):
        assert f"  {option}" in done.stderr
    assert "called" not in done.stderr


@pytest.mark.parametrize("script", ["queued_resources.sh", "gke.sh"])
def test_a_workdir_outside_the_bucket_is_rejected(no_cloud, script):
    arguments = (*GKE[:5], "--image=i") if script == "gke.sh" else TPU
    done = call(LAUNCH / script, "run", *arguments, "--", "--config=c", "--workdir=runs/uno", path=no_cloud, check=2)
    assert "--workdir=/mnt/bucket" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--slice=v9-3",), "expected v5e-N"),
        (("--slice=v5e-12",), "expected v5e-N"),
        (("--slice=v5e-",), "expected v5e-N"),
        (("--slice=v5p-100",), "expected v5e-N"),
        (("--slice=v5p-8576",), "sides of at most 256 chips"),
        (("--colour=red",), "--colour=red: unknown option"),
        (("--spot=true",), "--spot=true: unknown option"),
        (("--network",), "--network: unknown option"),
        (("fast",), "expected --option=value"),
        (("--bucket=gs://b/runs",), "--bucket=b/runs: expected a bucket"),
        (("--name=123",), "--name=123: expected at most 40 lower-case letters"),
        (("--name=Uno",), "--name=Uno: expected at most 40 lower-case letters"),
        (("--slices=0",), "--slices=0: expected the number of slices"),
        (("--slices=two",), "--slices=two: expected the number of slices"),
        (("--restarts=-1",), "--restarts=-1: expected the maximum number of restarts"),
    ],
)
def test_invalid_options_are_rejected(no_cloud, arguments, message):
    done = call(LAUNCH / "queued_resources.sh", "create", *TPU, *arguments, path=no_cloud, check=2)
    assert message in done.stderr


@pytest.mark.parametrize(
    ("script", "option"), [("gke.sh", "--reserved"), ("gke.sh", "--keep"), ("local_multihost.sh", "--spot")]
)
def test_an_option_of_another_script_is_rejected(no_cloud, script, option):
    first = "1" if script == "local_multihost.sh" else "check"
    done = call(LAUNCH / script, first, "--dry-run", option, path=no_cloud, check=2)
    assert f"{option}: unknown option. Expected one of --dry-run " in done.stderr


@pytest.mark.parametrize("bucket", ["b", "gs://b", "gs://b/"])
def test_a_bucket_is_given_by_name_or_address(no_cloud, bucket):
    done = call(LAUNCH / "queued_resources.sh", "check", "--dry-run", *TPU, f"--bucket={bucket}", path=no_cloud)
    assert "+ gcloud storage buckets describe gs://b --format" in done.stdout


@pytest.mark.parametrize("script", PROGRAMS, ids=lambda script: script.name)
@pytest.mark.parametrize("arguments", [("--help",), ("up", "-h")])
def test_help_prints_the_usage(script, arguments):
    done = call(script, *arguments)
    assert f"  launch/{script.name} " in done.stdout
    assert "set -e" not in done.stdout


def test_no_script_deletes_data():
    for script in SCRIPTS:
        text = script.read_text()
        assert not re.search(r"storage (rm|rsync|mv|buckets delete)|gsutil|rm -r|clusters delete", text), script


# The end of a run


def project(folder: Path, program: str) -> Path:
    """Creates a project with the launch scripts and `program` as the training program."""
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
def test_a_host_stores_the_exit_status_of_its_run(tmp_path, status):
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


@pytest.fixture
def bare_host(tmp_path) -> Path:
    """A folder with failing tools that would change the host, and a `systemctl` that knows no units."""
    failing_tools(tmp_path, ("sudo", "curl", "uv", "rm"))
    (tmp_path / "systemctl").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "systemctl").chmod(0o755)
    return tmp_path


def test_a_dry_run_of_install_host_prints_the_remaining_commands(bare_host):
    done = call(LAUNCH / "install_host.sh", "--dry-run", "--bucket=b", path=bare_host)
    assert "called" not in done.stderr
    assert "+ gcsfuse --implicit-dirs --rename-dir-limit=200000 b /mnt/bucket" in done.stdout
    assert "-r requirements-tpu.txt" in done.stdout


def test_a_dry_run_of_start_host_prints_the_command_of_its_unit(bare_host):
    done = call(LAUNCH / "start_host.sh", "--dry-run", "--config=a b", path=bare_host)
    assert "called" not in done.stderr
    assert done.stdout.splitlines()[-1].endswith(f"{LAUNCH}/start_host.sh --here --config=a\\ b")


LOCAL = ("--port=1234", f"--python={sys.executable}", "--", "--config=c", "--workdir=w")


def test_local_processes_have_the_arguments_of_a_host_and_their_process_number(tmp_path):
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


def test_a_signal_reaches_all_local_processes_and_waits_for_their_exit(tmp_path):
    folder = project(tmp_path, UNTIL_TOLD.replace("sys.argv[-1]", "sys.argv[3]"))
    command = ["launch/local_multihost.sh", "2", *LOCAL]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as script:
        wait_for(folder / "started0", folder / "started1")
        script.terminate()
        output, _ = script.communicate(timeout=20)
    assert script.returncode == 143
    assert sorted(line for line in output.splitlines() if "saved" in line) == ["[0] saved", "[1] saved"]


# Each line of the files `slice` and `run` is one answer, to `describe` and to `--state`.
CLOUD = """#!/bin/bash
echo "gcloud $*" >>calls
case "$*" in
  *quotas*) echo "us-west4-a us-west4-b,$(cat quota)" ;;
  *describe\\ uno*)
    answer=$(head -n 1 slice)
    sed -i 1d slice
    [[ $answer != ERROR* ]] || { echo "$answer" >&2; exit 1; }
    echo "$answer"
    ;;
  *--state*) head -n 1 run; sed -i 1d run ;;
  *describe*|*list*) echo True ;;
esac
"""


def cloud(folder: Path, slice_states: list[str], run_states: list[str], quota: int = 16) -> Path:
    """Creates a fake `gcloud` with the given answers."""
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


def test_a_preempted_run_is_restarted_on_a_new_slice(tmp_path):
    slices = ["", "PROVISIONING", "ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDING", "SUSPENDED", "ACTIVE", "ACTIVE"]
    folder = cloud(tmp_path, slices, ["running", "0"])
    launch(folder, "--restarts=0", check=0)
    assert steps_taken(folder) == ["create", "run", "delete", "create", "run", "delete"]


def test_a_failed_query_of_a_slice_is_repeated(tmp_path):
    lost = "ERROR: (gcloud.compute.tpus) There was a problem refreshing your current auth tokens"
    slices = [lost, "ERROR: NOT_FOUND: Resource 'uno'", lost, "ACTIVE", lost, "ACTIVE"]
    folder = cloud(tmp_path, slices, ["running", "0"])
    done = launch(folder, "--restarts=0", check=0)
    assert steps_taken(folder) == ["create", "run", "delete"]
    assert "problem refreshing" in done.stderr


def test_a_run_that_was_told_to_stop_is_restarted_on_the_same_slice(tmp_path):
    folder = cloud(tmp_path, ["", *["ACTIVE"] * 5], ["143", "0"])
    launch(folder, "--restarts=0", "--keep", check=0)
    assert steps_taken(folder) == ["create", "run", "run"]


def test_a_run_that_fails_is_restarted_up_to_the_maximum(tmp_path):
    folder = cloud(tmp_path, ["", *["ACTIVE"] * 5], ["1", "1"])
    done = launch(folder, "--restarts=1", check=1)
    assert steps_taken(folder) == ["create", "run", "run", "delete"]
    assert "failure 2 (at most 1 restarts)" in done.stdout


def test_arguments_are_quoted_for_the_hosts(tmp_path):
    folder = cloud(tmp_path, [], [])
    call(LAUNCH / "queued_resources.sh", "run", *TPU, *TRAIN, "--config.note=a 'b", cwd=folder, path=folder)
    command = (folder / "calls").read_text().partition("--command=")[2]
    assert shlex.split(command)[1:4] == [*TRAIN[1:], "--config.note=a 'b"]


def test_a_quota_that_is_too_small_is_named_before_anything_is_created(tmp_path):
    folder = cloud(tmp_path, [], [], quota=8)
    done = launch(folder, check=2)
    assert "TPUV5sLitepodPerProjectPerZoneForTPUAPI in us-west4-a: it is 8, but 16 is needed" in done.stderr
    assert steps_taken(folder) == []
