"""Sheets of samples during training: generated pictures and written captions for a few held-out records."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from uno_jax.attention.metadata import TokenMetadata
from uno_jax.batch import Batch, Layout, PixelBatch
from uno_jax.config import ConfigError
from uno_jax.data.config import DataConfig
from uno_jax.data.held_out import spread
from uno_jax.data.methods import MethodConfig, make_sample
from uno_jax.data.mixture import Mixture, part_configs
from uno_jax.data.plans import CleanLatents, NoisedTarget, Plan
from uno_jax.data.record import Record, as_stored
from uno_jax.data.sampling_rows import caption_parts, context_batch
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.inference.picture_files import write_png
from uno_jax.inference.picture_inputs import PictureInputs, guided_plan, picture_inputs, read_branches
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.autoencoder_batch import encode_batch
from uno_jax.models.config import layout_of
from uno_jax.objectives.draws import draw
from uno_jax.parallel.mesh import jit_replicated, own_rows, put_rows, row_parts
from uno_jax.run.config import RunConfig
from uno_jax.run.context import RunContext
from uno_jax.sampling.cache import read_context
from uno_jax.sampling.decode import decode_pictures
from uno_jax.sampling.flow import sample_latents
from uno_jax.sampling.guidance import GuidanceConfig
from uno_jax.sampling.schedule import FlowConfig
from uno_jax.sampling.text import TextConfig, write_text, written_ids
from uno_jax.sheets.samples import Example, Picture, make_sheet
from uno_jax.training.state import Params

TASKS_WITH_TARGET = ("text_to_image", "editing")


class Sampled(NamedTuple):
    """Outputs of the model for the examples."""

    latents: Float[np.ndarray, "rows tokens features"]
    """Latents of the sampled pictures, followed by padding."""
    target_captions: list[str]
    sample_captions: list[str]


def make_generate_pictures(context: RunContext) -> Callable[[int, Params], None]:
    """Returns a function that generates pictures and captions and writes `pictures/step_<step>.png` in the workdir.

    Everything except the parameters, including records and noise, is the same at every step.

    Raises:
      ConfigError: the held-out split has no record with a target picture.
    """
    config = context.config
    assert context.held_out is not None, "the held-out records are not open"
    records, layout = choose_records(config, context.held_out), layout_of(config.model)
    plans = [make_plan(chosen, context.tokenizer) for chosen in records]
    grids = [_grid(plan, layout) for plan in plans]
    sample = _make_sample(context, plans)
    autoencoder = make_autoencoder(config.model.autoencoder)

    def generate_pictures(step: int, params: Params) -> None:
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
            for i, ((record, _), plan) in enumerate(zip(records, plans, strict=True))
        ]
        path = context.workdir / "pictures" / f"step_{step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, make_sheet(f"step {step}", examples))

    return generate_pictures


class Chosen(NamedTuple):
    """A record of the sheets, and the config that its dataset is read with."""

    record: Record
    config: DataConfig


def choose_records(config: RunConfig, mixture: Mixture) -> list[Chosen]:
    """Returns evenly spaced held-out records, balanced over the trained tasks with a target picture.

    Args:
      config: the config of the run.
      mixture: from `open_held_out`.

    Raises:
      ConfigError: there is no such record.
    """
    numbers = spread(mixture.trained(TASKS_WITH_TARGET), config.pictures.examples)
    if not numbers:
        where = " or ".join(part.directory for part in part_configs(config.data).values())
        raise ConfigError(
            f"config.pictures.every is {config.pictures.every}, but split {config.evaluation.split!r} of {where} has "
            "no sampled record of a task with a target picture: set it to 0"
        )
    return [Chosen(mixture[number], mixture.parts[mixture.locate(number)[0]].config) for number in numbers]


def caption_inputs(
    targets: Sequence[NoisedTarget], layout: Layout, tokenizer: Tokenizer, rows: int
) -> tuple[PixelBatch | Batch, TokenMetadata]:
    """Returns the noised targets with pixels, padded to `rows` rows, and the start tokens of their captions.

    There is no context, so a caption depends only on what the understanding expert sees in the picture, not on the
    prompt.
    """
    parts = [caption_parts((), target, layout, tokenizer, occurrence=i) for i, target in enumerate(targets)]
    blocks, captions = zip(*parts, strict=True)
    first = context_batch(captions, layout, rows).understanding
    return context_batch(blocks, layout, rows), TokenMetadata(*(x[:, :1] for x in first))


def _make_sample(context: RunContext, plans: Sequence[Plan]) -> Callable[[Params], Sampled]:
    """Returns a function that samples the pictures of the plans and writes captions of the targets and the samples."""
    config, mesh, tokenizer = context.config, context.mesh, context.tokenizer
    model, settings, seed, layout = config.model, config.pictures, config.seed, layout_of(config.model)
    rows = -(-len(plans) // row_parts(mesh)) * row_parts(mesh)
    autoencoder = make_autoencoder(model.autoencoder)
    guidance = GuidanceConfig(settings.text_scale, image_scale=1.0, interval=(0.0, 1.0), rescale_min=1.0)
    flow = FlowConfig(settings.timesteps, config.objective.time_shift, guidance)
    text = TextConfig(settings.caption_tokens)

    guided = [guided_plan(plan[:-1], *_target(plan).pixels.shape[:2], seed=number) for number, plan in enumerate(plans)]
    inputs = own_rows(picture_inputs(guided, layout, tokenizer, rows), mesh)
    block_pixels, first = own_rows(caption_inputs([_target(plan) for plan in plans], layout, tokenizer, rows), mesh)
    encode = functools.partial(encode_batch, autoencoder, context.autoencoder_params, config=model)
    inputs = put_rows(inputs._replace(context=encode(inputs.context)), mesh)
    blocks, first = put_rows((encode(block_pixels), first), mesh)

    jit = functools.partial(jit_replicated, mesh=mesh)

    def latents_of(batch: Batch) -> Array:
        return draw(batch, seed, 1.0, model.autoencoder).latents

    @jit
    def sample(params: Params, inputs: PictureInputs) -> Array:
        assert isinstance(inputs.context, Batch), "the context is not encoded"
        branches = read_branches(params, inputs, latents_of(inputs.context), model)
        return sample_latents(params, branches, model, flow, seed)

    @jit
    def write(params: Params, blocks: Batch, first: TokenMetadata, latents: Array) -> Array:
        cache = read_context(params, blocks, latents, model)
        return write_text(params, cache, first, tokenizer.start, (tokenizer.end,), model, text)

    target_latents = jit(latents_of)(blocks)

    def texts(params: Params, latents: Array) -> list[str]:
        ids = np.asarray(write(params, blocks, first, latents))[: len(plans)]
        return [tokenizer.decode(written_ids(row, (tokenizer.end,))) for row in ids]

    def sampled(params: Params) -> Sampled:
        latents = sample(params, inputs)
        return Sampled(np.asarray(latents), texts(params, target_latents), texts(params, latents))

    return sampled


def make_plan(chosen: Chosen, tokenizer: Tokenizer) -> Plan:
    """Makes a plan of a record's complete context and its target, without supervision, for any trained method.

    Pictures have the size at which the record's dataset is trained. They are pixels, also if the run has their moments,
    because sheets show them.
    """
    record, inputs = as_stored(chosen.record), chosen.config.inputs(tokenizer)
    return make_sample(record, MethodConfig(method="sft"), inputs, np.random.default_rng(0)).plan


def _target(plan: Plan) -> NoisedTarget:
    target = plan[-1]
    assert isinstance(target, NoisedTarget)
    return target


def _grid(plan: Plan, layout: Layout) -> tuple[int, int]:
    """Returns rows and columns of the target's latent tokens."""
    height, width, _ = _target(plan).pixels.shape
    return height // layout.pixels_per_token, width // layout.pixels_per_token
