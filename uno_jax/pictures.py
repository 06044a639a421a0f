"""Pictures during training: what the model makes of a few held-out records, and what it reads in them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from uno_jax.attention.metadata import NOISED
from uno_jax.batch import TASKS, Batch
from uno_jax.config import ConfigError
from uno_jax.data.layout import REGIONS, Layout, lay_out, sample_lengths
from uno_jax.data.packing import make_batch, pack_row
from uno_jax.data.plans import CleanLatents, Inputs, MethodConfig, NoisedTarget, Plan, Text, make_sample
from uno_jax.data.records import Record, open_records, record_tasks
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.autoencoder_batch import encode_batch
from uno_jax.objectives.draws import draw
from uno_jax.parallel.mesh import put_rows, replicated
from uno_jax.picture_sheet import Example, Picture, draw_sheet
from uno_jax.run import Context, layout_of
from uno_jax.run_config import RunConfig
from uno_jax.sampling.decode import decode_pictures
from uno_jax.sampling.flow import FlowConfig, sample_pictures
from uno_jax.sampling.text import write_captions, written_ids
from uno_jax.training.state import Params

TASKS_WITH_TARGET = ("text_to_image", "editing")


class PictureBatches(NamedTuple):
    """The same examples three times, one a row, in numpy and with pixels; rows that are left over are padding."""

    full: Batch
    """Context and a noised target."""
    without_prompt: Batch
    """The same with the prompts left out."""
    captions: Batch
    """The noised target alone, with a caption that fills its region."""


class Sampled(NamedTuple):
    """What the model made of the examples."""

    latents: Float[np.ndarray, "rows tokens features"]
    """Of the sampled pictures, each from token 0."""
    target_captions: list[str]
    sample_captions: list[str]


def make_draw_pictures(context: Context) -> Callable[[int, Params], None]:
    """A function that draws a sheet of samples and captions, `pictures/step_<step>.png` in the workdir.

    The records, their noise and everything else but the parameters are the same at every step.

    Raises:
      ConfigError: the held-out split has no record with a target picture.
    """
    config = context.config
    records, layout = choose_records(config), layout_of(config.model)
    plans = [_plan(record, config, context.tokenizer) for record in records]
    grids = [_grid(plan, layout) for plan in plans]
    sample = _make_sample(context, plans)
    autoencoder = make_autoencoder(config.model.autoencoder)

    def draw_pictures(step: int, params: Params) -> None:
        sampled = sample(params)
        if jax.process_index() != 0:
            return
        tokens = [sampled.latents[i, : rows * columns] for i, (rows, columns) in enumerate(grids)]
        pictures = decode_pictures(autoencoder, context.autoencoder_params, tokens, grids, config.model)
        examples = [
            Example(
                record.task,
                record.prompt,
                (
                    *(Picture("source", item.pixels) for item in plan if isinstance(item, CleanLatents)),
                    Picture("target", _target(plan).pixels, sampled.target_captions[i]),
                    Picture("sample", pictures[i], sampled.sample_captions[i]),
                ),
            )
            for i, (record, plan) in enumerate(zip(records, plans, strict=True))
        ]
        path = context.workdir / "pictures" / f"step_{step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_sheet(f"step {step}", examples).save(path)

    return draw_pictures


def choose_records(config: RunConfig) -> list[Record]:
    """The examples: evenly spaced held-out records, as many of each task that has a target picture and is trained.

    Raises:
      ConfigError: there are none.
    """
    directory, split, weights = config.data.directory, config.evaluation.split, config.data.task_weights
    tasks, source = record_tasks(directory, split), open_records(directory, split)
    names = [name for name in TASKS_WITH_TARGET if not weights or weights.get(name, 0) > 0]
    groups = [group for name in names if len(group := np.flatnonzero(tasks == TASKS.index(name))) > 0]
    if not groups:
        raise ConfigError(
            f"config.pictures.every is {config.pictures.every}, but split {split!r} of {directory} holds no record of "
            f"{' or '.join(names) or 'a task with a target picture'}: set it to 0"
        )
    chosen = []
    for i, group in enumerate(groups):
        count = min((config.pictures.examples + i) // len(groups), len(group))
        chosen += [source[int(group[at])] for at in np.linspace(0, len(group) - 1, count).round().astype(int)]
    return chosen


def make_picture_batches(
    plans: Sequence[Plan], layout: Layout, tokenizer: Tokenizer, caption_tokens: int, rows: int
) -> PictureBatches:
    """Batches of plans that end in a noised target, padded to `rows` rows.

    A caption takes `caption_tokens`, the start token included. Captions are read without any context: they say what
    the understanding expert sees in the picture, and nothing of the prompt.
    """
    # The ids between the delimiters are to be written; these only hold their places.
    blank = (tokenizer.end,) * (caption_tokens - 2)
    captioned: list[Plan] = [(NoisedTarget(pixels=_target(plan).pixels, caption=blank),) for plan in plans]
    unprompted: list[Plan] = [tuple(item for item in plan if not isinstance(item, Text)) for plan in plans]

    def lengths(plans: Sequence[Plan]) -> dict[str, int]:
        samples = [sample_lengths(plan, layout) for plan in plans]
        return {region: max(sample[region] for sample in samples) for region in REGIONS}

    def batch_of(plans: Sequence[Plan], capacities: dict[str, int]) -> Batch:
        samples = [[lay_out(plan, layout, tokenizer, occurrence=i)] for i, plan in enumerate(plans)]
        padding: list = [[] for _ in range(rows - len(samples))]
        return make_batch([pack_row(row, capacities, layout) for row in samples + padding])

    return PictureBatches(
        full=batch_of(plans, lengths(plans)),
        without_prompt=batch_of(unprompted, lengths(plans)),
        captions=batch_of(captioned, lengths(captioned)),
    )


def targets_alone(
    latents: Float[np.ndarray, "rows tokens features"], full: Batch, captions: Batch
) -> Float[np.ndarray, "rows target_tokens features"]:
    """The latents of the noised targets, moved from where they lie in `full` to where they lie in `captions`."""
    alone = np.zeros((*captions.generation.role.shape, latents.shape[-1]), latents.dtype)
    alone[captions.generation.role == NOISED] = latents[full.generation.role == NOISED]
    return alone


def _make_sample(context: Context, plans: Sequence[Plan]) -> Callable[[Params], Sampled]:
    """A function that samples the pictures of the plans, and writes captions of their targets and of the samples."""
    config, mesh, tokenizer = context.config, context.mesh, context.tokenizer
    settings, seed = config.pictures, config.seed
    rows = -(-len(plans) // mesh.size) * mesh.size
    batches = make_picture_batches(plans, layout_of(config.model), tokenizer, settings.caption_tokens, rows)
    flow = FlowConfig(settings.timesteps, config.objective.time_shift, settings.text_scale)
    autoencoder = make_autoencoder(config.model.autoencoder)

    def put(tree: Any) -> Any:
        """This host's rows of arrays that every host has whole, on the mesh."""
        per_host = rows // jax.process_count()
        first = jax.process_index() * per_host
        own = jax.tree.map(lambda x: x[first : first + per_host], tree)
        if isinstance(own, Batch):
            own = encode_batch(autoencoder, context.autoencoder_params, own, config.model)
        return put_rows(own, mesh)

    # What comes out is whole on every device, so that every host can read all rows.
    jit = functools.partial(jax.jit, out_shardings=replicated(mesh))
    sample = jit(lambda params, full, unprompted: sample_pictures(params, full, unprompted, config.model, flow, seed))
    write = jit(
        lambda params, batch, latents: write_captions(
            params, batch, latents, config.model, tokenizer.start, tokenizer.end
        )
    )
    full, without_prompt, captions = (put(batch) for batch in batches)
    target_latents = jit(lambda batch: draw(batch, seed, 1.0, config.model.autoencoder).latents)(captions)

    def texts(params: Params, latents: Any) -> list[str]:
        ids = np.asarray(write(params, captions, latents))[: len(plans)]
        return [tokenizer.decode(written_ids(row, tokenizer.end)) for row in ids]

    def sampled(params: Params) -> Sampled:
        latents = targets_alone(np.asarray(sample(params, full, without_prompt)), batches.full, batches.captions)
        return Sampled(latents, texts(params, target_latents), texts(params, put(latents)))

    return sampled


def _plan(record: Record, config: RunConfig, tokenizer: Tokenizer) -> Plan:
    """The record's whole context and its target, without supervision, whatever method is trained."""
    data = config.data
    inputs = Inputs(tokenizer, data.vae_transform, data.vit_transform, data.metaquery_transform)
    return make_sample(record, MethodConfig(method="sft"), inputs, np.random.default_rng(0)).plan


def _target(plan: Plan) -> NoisedTarget:
    target = plan[-1]
    assert isinstance(target, NoisedTarget)
    return target


def _grid(plan: Plan, layout: Layout) -> tuple[int, int]:
    """Rows and columns of the target's latent tokens."""
    height, width, _ = _target(plan).pixels.shape
    return height // layout.pixels_per_token, width // layout.pixels_per_token
