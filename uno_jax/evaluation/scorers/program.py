"""Scores pictures with a package from PyPI. This file is a program in the environment of that package:

PYTHON program.py SCORER JOB RESULT

It needs that package, and nothing of uno_jax, which reads its table only. JOB is a file with the fields of `Job`.
RESULT receives versions, and `averages` or `scores`: one for each picture, null if it is not finite.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

EXTENSIONS = ("png", "jpg", "jpeg", "webp")
"""Extensions of reference pictures."""
_SUBSET = 1000  # of KID, as the package has it
_NAMED = 25  # progress is printed after so many pictures


class Job(NamedTuple):
    """What to score."""

    folder: str
    """Folder with nothing but the pictures."""
    pictures: list[str]
    """Their paths."""
    prompts: list[str]
    """The prompt of each."""
    reference: str | None
    """Folder of pictures to compare with."""
    references: int
    """Their number."""
    weights: str | None
    """A file or a name, as the package takes it; None: what the package loads."""
    side: int
    """Pixels that all pictures are resized and cropped to; 0: as they are."""


class Scorer(NamedTuple):
    """A row of the table."""

    title: str
    """Name of the score."""
    package: str
    """Its name on PyPI."""
    tried: str
    """The version that was tried here, and how far; or why none was."""
    call: Callable[[Job], dict[str, Any]]
    weights: str
    """What `Job.weights` is."""
    reference: bool = False
    """Whether pictures are compared with others, as a set, and not each with its prompt."""


def _fid(job: Job) -> dict[str, Any]:
    found = import_module("torch_fidelity").calculate_metrics(
        input1=job.folder,
        input2=job.reference,
        fid=True,
        kid=True,
        kid_subset_size=min(_SUBSET, len(job.pictures), job.references),
        samples_find_deep=True,
        samples_find_ext=",".join(EXTENSIONS),
        samples_resize_and_crop=job.side,
        feature_extractor_weights_path=job.weights,
        cuda=import_module("torch").cuda.is_available(),
        cache=False,
    )
    return {
        "averages": {
            "FID": found["frechet_inception_distance"],
            "KID": found["kernel_inception_distance_mean"],
            "KID, standard deviation of subsets": found["kernel_inception_distance_std"],
        }
    }


def _vqascore(job: Job) -> dict[str, Any]:
    model = import_module("t2v_metrics").VQAScore(model=job.weights or "clip-flant5-xxl")
    return _each(job, lambda picture, prompt: model(images=[picture], texts=[prompt])[0][0])


def _hpsv3(job: Job) -> dict[str, Any]:
    model = import_module("hpsv3").HPSv3RewardInferencer(checkpoint_path=job.weights)
    return _each(job, lambda picture, prompt: model.reward(image_paths=[picture], prompts=[prompt])[0][0])


def _image_reward(job: Job) -> dict[str, Any]:
    model = import_module("ImageReward").load(job.weights or "ImageReward-v1.0")
    return _each(job, lambda picture, prompt: model.score(prompt, picture))


def _each(job: Job, score: Callable[[str, str], Any]) -> dict[str, Any]:
    """Scores each picture with its prompt."""
    scores: list[float | None] = []
    for number, picture in enumerate(job.pictures):
        value = float(score(picture, job.prompts[number]))
        scores.append(value if math.isfinite(value) else None)
        if len(scores) % _NAMED == 0:
            print(f"{len(scores)} of {len(job.pictures)}", flush=True)
    return {"scores": scores}


_HUB = "not tried: it loads weights from a hub"
SCORERS: dict[str, Scorer] = {
    "fid": Scorer(
        "FID and KID",
        "torch-fidelity",
        "0.4.0, with random weights",
        _fid,
        "file of Inception weights",
        reference=True,
    ),
    "vqascore": Scorer("VQAScore", "t2v-metrics", _HUB, _vqascore, "name of a model"),
    "hpsv3": Scorer("HPSv3", "hpsv3", _HUB, _hpsv3, "file of a checkpoint"),
    "image_reward": Scorer("ImageReward", "image-reward", _HUB, _image_reward, "name or file"),
}


def _main(name: str, job: str, result: str) -> None:
    scorer = SCORERS[name]
    found = scorer.call(Job(**json.loads(Path(job).read_text(encoding="utf-8"))))
    versions = {"python": platform.python_version()}
    for package in (scorer.package, "torch", "torchvision", "transformers"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    Path(result).write_text(json.dumps({**found, "versions": versions}), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
