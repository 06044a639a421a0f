"""How well the understanding expert reads: captions and answers of ViT patches, clean latents and noised latents.

Captions of noised latents are written as UNO trains them: after the noised block, which alone they see. The block sees
no prompt, its own, or that of another scene. If captions follow the other prompt, they are read from the prompt through
the block, and not from the picture.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from uno_jax.attention.metadata import TokenMetadata
from uno_jax.batch import Batch
from uno_jax.data.decoding import decode_rgb
from uno_jax.data.plans import CleanLatents, Item, NoisedTarget, Plan, Text, VitImage
from uno_jax.data.records import first_records
from uno_jax.data.sampling_rows import caption_parts, context_batch
from uno_jax.data.scenes.generate import example_of
from uno_jax.data.scenes.scene import Scene
from uno_jax.data.scenes.text import caption_is_right, read
from uno_jax.inference.reader import SEED, Reader
from uno_jax.models.config import ModelConfig
from uno_jax.objectives.draws import draw
from uno_jax.parallel.axes import on_mesh
from uno_jax.parallel.mesh import put_rows
from uno_jax.sampling.cache import read_context
from uno_jax.sampling.text import TextConfig, write_text, written_ids
from uno_jax.study.config import Evaluation, SamplingPlan
from uno_jax.study.job import Job, Line, Scored, seed_of


class Way(NamedTuple):
    """A way to read a picture."""

    what: str
    """`caption` or `answer`."""
    source: str
    """`vit`, `latents` (clean ones, as context) or `noised` (a noised block)."""
    time: float = 0.0
    """Time t of a noised block."""
    prompt: str = "none"
    """What the noised block sees: `none`, `own` or `other`."""

    @property
    def name(self) -> str:
        """Name in lines and tables."""
        at = f" t={self.time:g} {self.prompt} prompt" if self.source == "noised" else ""
        return f"{self.what} {self.source}{at}"


def read_jobs(dataset: Path, evaluation: Evaluation, sampling: SamplingPlan) -> list[Job]:
    """Returns the jobs of all ways to read, with the same pictures for all captions."""
    pictures = first_records(dataset, evaluation.split, "text_to_image", evaluation.records)
    questions = first_records(dataset, evaluation.split, "understanding", evaluation.records)
    shapes = [_shapes(example_of(record.id).scene) for record in pictures]
    jobs = []
    for way in _ways(sampling):
        for number, record in enumerate(questions if way.what == "answer" else pictures):
            other = None
            if way.prompt == "other":
                turns = ((number + i) % len(pictures) for i in range(1, len(pictures)))
                found = next((turn for turn in turns if shapes[turn] != shapes[number]), None)
                if found is None:
                    continue
                other = pictures[found]
            jobs.append(Job(record, group=way, name=f"{way.name} {record.id}", other=other))
    return jobs


def _ways(sampling: SamplingPlan) -> list[Way]:
    clear = [Way(what, source) for what in ("caption", "answer") for source in ("vit", "latents")]
    noised = [Way("caption", "noised", t, prompt) for prompt in ("none", "own", "other") for t in sampling.times]
    return clear + noised


def read_lines_of(scored: Scored, jobs: Sequence[Job]) -> list[Line]:
    """Writes a caption or an answer for each job in the way of the jobs, and judges it."""
    way: Way = jobs[0].group
    write = _write_after_noised if way.source == "noised" else _write_after_context
    texts = write(scored.generator.reader, jobs, way, scored.sampling)
    return [
        {"job": job.name, "way": way._asdict(), "text": text, **_judged(job, text)}
        for job, text in zip(jobs, texts, strict=True)
    ]


def _judged(job: Job, text: str) -> Line:
    if job.group.what == "answer":
        return {"right": text.strip() == job.record.answer.strip()}
    scene = example_of(job.record.id).scene
    line: Line = {"right": caption_is_right(text, scene), "shapes": _says_shapes(text, scene)}
    if job.other is not None:
        line["shapes_of_other"] = _says_shapes(text, example_of(job.other.id).scene)
    return line


def _shapes(scene: Scene) -> Counter[str]:
    return Counter(thing.shape for thing in scene.things)


def _says_shapes(text: str, scene: Scene) -> bool:
    """Whether a caption names exactly the shapes of a scene, with their numbers."""
    description = read(text)
    if description is None:
        return False
    said: Counter[str | None] = Counter()
    for group in description.groups:
        said[group.kind.shape] += group.count
    return said == _shapes(scene)


def _write_after_context(reader: Reader, jobs: Sequence[Job], way: Way, sampling: SamplingPlan) -> list[str]:
    """Writes texts after clear pictures, and their questions if any."""
    model = reader.model
    plans: list[Plan] = []
    for job in jobs:
        pixels = decode_rgb(job.record.image, job.name)
        picture: Item
        if way.source == "latents":
            picture = CleanLatents(pixels=model.vae_transform.resize(pixels))
        else:
            picture = VitImage(pixels=model.vit_transform.resize(pixels))
        question = (Text(ids=tuple(model.tokenizer.encode(job.record.prompt))),) if way.what == "answer" else ()
        plans.append((picture, *question))
    seeds = [seed_of(job.record) for job in jobs]
    [*_, written] = reader.write(reader.read(plans, seeds), TextConfig(sampling.caption_tokens), seeds)
    return [model.tokenizer.decode(ids) for ids in written]


def _write_after_noised(reader: Reader, jobs: Sequence[Job], way: Way, sampling: SamplingPlan) -> list[str]:
    """Writes captions of noised blocks, which see the prompts of the jobs if the way says so."""
    model, layout, rows = reader.model, reader.layout, reader.row_count(len(jobs))
    blocks, captions = [], []
    for job in jobs:
        seen = {"none": None, "own": job.record, "other": job.other}[way.prompt]
        context = () if seen is None else (Text(ids=tuple(model.tokenizer.encode(seen.prompt))),)
        target = NoisedTarget(pixels=model.vae_transform.resize(decode_rgb(job.record.image, job.name)))
        block, caption = caption_parts(context, target, layout, model.tokenizer, occurrence=seed_of(job.record))
        blocks.append(block)
        captions.append(caption)
    first = TokenMetadata(*(x[:, :1] for x in context_batch(captions, layout, rows).understanding))
    batch, first = put_rows((reader.encoded(context_batch(blocks, layout, rows)), first), reader.mesh)
    end, text = model.tokenizer.end, TextConfig(sampling.caption_tokens)
    with on_mesh(reader.mesh):
        ids = _write(model.params, batch, first, way.time, model.tokenizer.start, end, model.config, text)
    return [model.tokenizer.decode(written_ids(row, (end,))) for row in np.asarray(ids)[: len(jobs)]]


@functools.partial(jax.jit, static_argnames=("start", "end", "model", "text"))
def _write(
    params: Any,
    batch: Batch,
    first: TokenMetadata,
    time: Float[Any, ""],
    start: int,
    end: int,
    model: ModelConfig,
    text: TextConfig,
) -> Array:
    """Reads noised blocks at a time and writes their captions, `[rows, tokens]`."""
    draws = draw(batch, SEED, 1.0, model.autoencoder)
    times = time * batch.latent_time_scale
    noised = (1 - times[..., None]) * draws.latents + times[..., None] * draws.noise
    cache = read_context(params, batch, noised, model, times=times)
    return write_text(params, cache, first, start, (end,), model, text)
