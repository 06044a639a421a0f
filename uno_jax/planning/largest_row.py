"""A batch row filled with the largest samples of a config, and the shapes of a batch."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from uno_jax.batch import Batch
from uno_jax.config import ConfigError
from uno_jax.data.config import DataConfig
from uno_jax.data.largest import largest_samples, needed_tokens
from uno_jax.data.layout import lay_out, sample_lengths
from uno_jax.data.plans import NoisedTarget, Plan
from uno_jax.data.rows import make_batch, pack_row
from uno_jax.data.tokenizer import byte_tokenizer
from uno_jax.models.config import ModelConfig, layout_of, training_layout
from uno_jax.parallel.mesh import batch_sharding
from uno_jax.planning.example import Example
from uno_jax.run.config import RunConfig, run_layout


def example_row(data: DataConfig, model: ModelConfig, task: str = "text_to_image") -> Example:
    """Fills a row with as many samples of `task` as it holds.

    Images have the maximum size, and prompts and captions fill the rest of their regions. With the method `reca` the
    samples are reconstructions.

    Raises:
      ConfigError: the row is too short for one sample.
    """
    layout = training_layout(model)
    needed = sample_lengths(_largest_plan(data, task), layout)
    room = {name: data.capacities[name] // need for name, need in needed.items() if need}
    images = min(room.values())
    if data.max_samples_per_row:
        images = min(images, data.max_samples_per_row)
    if not images:
        raise ConfigError(
            "; ".join(
                f"config.data.{name}_tokens is {data.capacities[name]}, but one {task} sample with images of the "
                f"maximum size takes {needed[name]}"
                for name in room
                if not room[name]
            )
            + ". Increase the lengths, or reduce max_side of the transforms"
        )
    prompt_tokens = data.text_tokens // images - (needed["text"] - 1)
    # Where captions stand in for prompts, they have the prompt's room.
    caption_tokens = data.caption_tokens // images - 2 if needed["caption"] else prompt_tokens
    plan = _largest_plan(data, task, prompt_tokens=prompt_tokens, caption_tokens=caption_tokens)
    samples = [lay_out(plan, layout, byte_tokenizer(), task=task)] * images
    return Example(make_batch([pack_row(samples, data.capacities, layout)]), images)


def missing_room(data: DataConfig, model: ModelConfig, task: str) -> dict[str, Any]:
    """Returns the fields of `data` that are too small for one sample of `task`, with the lengths that it takes.

    Images have the maximum size. The values are ints, in tokens.
    """
    needed = needed_tokens(data, layout_of(model), task)
    return {f"{name}_tokens": need for name, need in needed.items() if need > data.capacities[name]}


def abstract_batch(config: RunConfig, mesh: Mesh) -> Batch:
    """Returns shapes, dtypes and shardings of a train step's batch.

    Latents are moments, from wherever. Vision patches are pixels, or features if the run has `data.features`. With a
    mixture, tokens state their dataset.

    Raises:
      ConfigError: some of the datasets of a mixture have features, and some have none.
    """
    layout = dataclasses.replace(run_layout(config), moments=2 * config.model.latent_size)
    rows = batch_sharding(mesh)

    def abstract(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((config.data.rows, *x.shape[1:]), x.dtype, sharding=rows)

    padding = make_batch([pack_row((), config.data.capacities, layout)])
    assert isinstance(padding, Batch), "its latents are moments"
    batch: Batch = jax.tree.map(abstract, padding)
    return batch


def _largest_plan(data: DataConfig, task: str, **tokens: int) -> Plan:
    """The first of the method's largest samples with a target, because the targets dominate the cost of a step."""
    plans = [sample.plan for sample in largest_samples(data, task, **tokens)]
    return next((plan for plan in plans if isinstance(plan[-1], NoisedTarget)), plans[0])
