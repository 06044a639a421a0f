"""The dataset of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uno_jax import prepare_data
from uno_jax.config import ConfigError
from uno_jax.data.conversion.before import MANIFEST
from uno_jax.process.json_reader import read_json_object
from uno_jax.study.config import DatasetPlan


def prepare_dataset(plan: DatasetPlan, directory: Path) -> dict[str, Any]:
    """Writes the dataset unless it exists, and returns its number of records by split and task."""
    if not plan.directory:
        prepare_data.main([*(f"--{option}" for option in plan.options), f"--out={directory}"])
    return {"records": _manifest(directory)["records"]}


def dataset_identity(plan: DatasetPlan) -> dict[str, Any]:
    """Returns what determines the dataset."""
    if plan.directory:
        return {"parameters": _manifest(Path(plan.directory))["parameters"]}
    return {"options": sorted(plan.options)}


def _manifest(directory: Path) -> dict[str, Any]:
    file = directory / MANIFEST
    if not file.is_file():
        raise ConfigError(f"config.data.directory: {directory} is not a prepared dataset ({file.name} not found)")
    return read_json_object(file)
