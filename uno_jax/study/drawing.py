"""Pictures from prompts, and edits of pictures, judged by the exact scorer of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uno_jax.data.decoding import decode_rgb
from uno_jax.data.records import first_records
from uno_jax.data.scenes.edits import edit_of
from uno_jax.data.scenes.generate import example_of
from uno_jax.data.scenes.score import judge, judge_edit
from uno_jax.inference.generate import GeneratedImage
from uno_jax.inference.picture_files import write_png
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.study.config import Evaluation, SamplingPlan
from uno_jax.study.job import Job, Line, Scored, seed_of, spread_evenly


def draw_jobs(dataset: Path, evaluation: Evaluation, sampling: SamplingPlan) -> list[Job]:
    """Returns a job for each prompt, in batches of similar length."""
    return _jobs(dataset, "text_to_image", evaluation, sampling)


def edit_jobs(dataset: Path, evaluation: Evaluation, sampling: SamplingPlan) -> list[Job]:
    """Returns a job for each edit, in batches of similar length."""
    return _jobs(dataset, "editing", evaluation, sampling)


def drawn_lines(scored: Scored, jobs: Sequence[Job]) -> list[Line]:
    """Draws the prompt of each record and judges whether everything that it says is drawn, and nothing else."""
    images = scored.generator.generate_images(
        [job.record.prompt for job in jobs], _settings(scored), seeds=_seeds(jobs), batch_size=len(jobs)
    )
    lines = []
    for job, image in zip(jobs, images, strict=True):
        example = example_of(job.record.id)
        judged = judge(example.facts, example.total, np.asarray(image.image))
        facts = {"facts": list(judged.facts), "total": judged.total}
        lines.append(_line(scored, job, image, right=judged.right, **facts, category=example.category))
    return lines


def edited_lines(scored: Scored, jobs: Sequence[Job]) -> list[Line]:
    """Edits the picture of each record and judges whether the change was made, and nothing else changed."""
    sources = [[decode_rgb(source, job.name) for source in job.record.sources] for job in jobs]
    images = scored.generator.edit_images(
        sources, [job.record.prompt for job in jobs], _settings(scored), seeds=_seeds(jobs), batch_size=len(jobs)
    )
    lines = []
    for job, image, given in zip(jobs, images, sources, strict=True):
        edit = edit_of(job.record.id)
        judged = judge_edit(edit.facts, edit.total, edit.kept, given[-1], np.asarray(image.image))
        kept = judged.ground and all(judged.stayed)
        lines.append(
            _line(scored, job, image, right=judged.right, made=judged.target.right, kept=kept, category=edit.kind)
        )
    return lines


def _jobs(dataset: Path, task: str, evaluation: Evaluation, sampling: SamplingPlan) -> list[Job]:
    records = first_records(dataset, evaluation.split, task, evaluation.records)
    kept = spread_evenly(sampling.pictures, len(records))
    jobs = [Job(record, name=record.id, keep=number in kept) for number, record in enumerate(records)]
    # Contexts of a batch are padded to the longest, and each length is a program of its own.
    return sorted(jobs, key=lambda job: len(job.record.prompt))


def _settings(scored: Scored) -> PictureSettings:
    return PictureSettings(
        timesteps=scored.sampling.timesteps,
        text_scale=scored.evaluation.scale,
        image_scale=1.0,
        interval=(0.0, 1.0),
        rescale_min=1.0,
    )


def _seeds(jobs: Sequence[Job]) -> list[int]:
    return [seed_of(job.record) for job in jobs]


def _line(scored: Scored, job: Job, image: GeneratedImage, **judged: Any) -> Line:
    line: Line = {"job": job.name, "prompt": job.record.prompt, **judged}
    if job.keep:
        name = f"{seed_of(job.record):010}.png"
        (scored.folder / "pictures").mkdir(exist_ok=True)
        write_png(scored.folder / "pictures" / name, image.image)
        line["picture"] = f"pictures/{name}"
    return line
