"""The original's samples, step by step, and the text that it wrote, against `infer.npz`.

Text to image and editing go through the same functions as every picture that we sample: laid out, padded to buckets,
read into contexts, and denoised in one program.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers.pixels import to_float
from tests.helpers.public_model import load_public
from tests.helpers.small_model import quick_jit
from tests.reference.harness import Check, Reference, close, exact
from uno_jax.attention.metadata import TokenMetadata
from uno_jax.batch import Layout
from uno_jax.data.layout import lay_out
from uno_jax.data.plans import CleanLatents, Plan, Text, VitImage
from uno_jax.data.sampling_rows import context_batch, part, token_count
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.data.transforms import ImageTransform
from uno_jax.inference.picture_inputs import guided_plan, picture_inputs, read_branches
from uno_jax.models.autoencoder import make_autoencoder, patchify_latents, sample_latents
from uno_jax.models.config import ModelConfig, layout_of
from uno_jax.models.decoder import KVCache
from uno_jax.models.positions import pixels_to_float
from uno_jax.models.unified import UnifiedModel
from uno_jax.sampling.cache import fitted, read_context
from uno_jax.sampling.decode import decode_pictures
from uno_jax.sampling.flow import Branch, Branches, denoise
from uno_jax.sampling.guidance import GuidanceConfig
from uno_jax.sampling.schedule import GUIDED, FlowConfig, make_schedule
from uno_jax.sampling.text import TextConfig, moved, token_logits, with_token, write_text

FILE = "infer.npz"
UNUSED: dict[str, str] = {}


class _Model(NamedTuple):
    """All of a checkpoint that sampling needs, and the transforms that the original sampled with."""

    config: ModelConfig
    params: Any
    autoencoder_params: Any
    layout: Layout
    tokenizer: Tokenizer
    vae_transform: ImageTransform
    vit_transform: ImageTransform


def checks(reference: Reference) -> Iterator[Check]:
    """Contexts, every state and velocity of every run, decoded pictures; resized inputs; written text and logits."""
    checkpoint = load_public(reference.directory)
    stated = reference.json("infer.json")
    model = _Model(
        checkpoint.config,
        jax.tree.map(jnp.asarray, checkpoint.params),
        jax.tree.map(jnp.asarray, checkpoint.autoencoder_params),
        layout_of(checkpoint.config),
        Tokenizer.from_directory(reference.directory),
        ImageTransform(*stated["vae_transform"]),
        ImageTransform(*stated["vit_transform"]),
    )
    yield from _text_to_image(reference, model)
    yield from _editing(reference, model)
    yield from _understanding(reference, model)


def _text_to_image(reference: Reference, model: _Model) -> Iterator[Check]:
    stated = reference.json("infer.json")["t2i"]
    prompt = Text(ids=tuple(stated["prompt_ids"]))
    for run, settings in stated["runs"].items():
        branches = _branches(model, (prompt,), stated["image_shape"], settings)
        yield from _run_checks(reference, model, f"t2i/{run}", stated | settings, branches)
    cache = branches.conditional.cache
    yield Check(FILE, "t2i/ctx_key_first", _in_order(cache.keys[0], cache), close())
    yield Check(FILE, "t2i/ctx_key_last", _in_order(cache.keys[-1], cache), close())
    yield Check(FILE, "t2i/ctx_value_last", _in_order(cache.values[-1], cache), close())


def _editing(reference: Reference, model: _Model) -> Iterator[Check]:
    stated = reference.json("infer.json")["edit"]
    resized = model.vae_transform.resize(reference.array(FILE, "edit/image"))
    vit = model.vit_transform.resize(resized)
    yield Check(FILE, "edit/resized", resized, exact)
    yield Check(FILE, "edit/vae_input", to_float(resized).transpose(2, 0, 1), close())
    yield Check(FILE, "edit/vit_input", to_float(vit).transpose(2, 0, 1), close())
    assert list(resized.shape[:2]) == stated["image_shape"]
    latent = _encode(model, resized, reference.array(FILE, "edit/vae_noise"))
    yield Check(FILE, "edit/vae_latent", latent, close())

    tokens = patchify_latents(jnp.asarray(latent.transpose(0, 2, 3, 1)), model.config.latent_patch_size)
    context: Plan = (CleanLatents(pixels=resized), VitImage(pixels=vit), Text(ids=tuple(stated["prompt_ids"])))
    for run, settings in stated["runs"].items():
        branches = _branches(model, context, stated["image_shape"], settings, tokens)
        yield from _run_checks(reference, model, f"edit/{run}", stated | settings | {"cfg_renorm_type": run}, branches)
    conditional, without_text, without_image = (branch.cache for branch in branches if branch)
    yield Check(FILE, "edit/ctx_key_first", _in_order(conditional.keys[0], conditional), close())
    yield Check(FILE, "edit/ctx_key_last", _in_order(conditional.keys[-1], conditional), close())
    yield Check(FILE, "edit/ctx_value_last", _in_order(conditional.values[-1], conditional), close())
    yield Check(FILE, "edit/cfg_text_ctx_key_last", _in_order(without_text.keys[-1], without_text), close())
    yield Check(FILE, "edit/cfg_img_ctx_key_last", _in_order(without_image.keys[-1], without_image), close())
    states = reference.expected(FILE, "edit/global/x_t")
    times = reference.expected(FILE, "edit/global/t")
    lowest, highest = stated["cfg_interval"]
    guided = ((lowest < times) & (times <= highest))[:, None, None]
    names = ("v_cond", "v_cfg_text", "v_cfg_img")
    for name, branch in zip(names, (branch for branch in branches if branch), strict=True):
        velocities = _velocities(model, branch, states[:-1], times)
        # Where guidance is off, the original computes the conditional branch alone, and stores zeros for the others.
        yield Check(FILE, f"edit/global/{name}", velocities if name == "v_cond" else velocities * guided, close())


def _branches(
    model: _Model, context: Plan, shape: list[int], stated: dict, tokens: np.ndarray | None = None
) -> Branches:
    """Contexts of one picture; they must be as long, and the picture at the position, that the original states."""
    inputs = picture_inputs([guided_plan(context, *shape)], model.layout, model.tokenizer)
    latents = np.zeros((*inputs.context.latent_index.shape, model.config.latent_size), np.float32)
    if tokens is not None:
        latents[:, : tokens.shape[1]] = tokens
    branches = _read(model.config)(model.params, inputs, latents)
    without_image = branches.without_image or branches.conditional
    for name, branch in (("ctx", branches.conditional), ("cfg_text_ctx", branches.without_text)):
        assert _facts(branch) == stated[name], f"{name}: {_facts(branch)}, expected {stated[name]}"
    assert _facts(without_image) == stated["cfg_img_ctx"]
    return branches


@functools.cache
def _read(config: ModelConfig) -> Any:
    return quick_jit(functools.partial(read_branches, model=config))


def _facts(branch: Branch | None) -> list[int]:
    assert branch is not None
    return [int((branch.cache.metadata.sample > 0).sum()), int(branch.target.understanding.position[0, 0])]


def _run_checks(reference: Reference, model: _Model, run: str, settings: dict, branches: Branches) -> Iterator[Check]:
    guidance = GuidanceConfig(
        settings["cfg_text_scale"],
        settings["cfg_img_scale"],
        tuple(settings["cfg_interval"]),
        settings["cfg_renorm_type"],
        settings["cfg_renorm_min"],
    )
    config = FlowConfig(settings["num_timesteps"], settings["timestep_shift"], guidance)
    noise = reference.array(FILE, f"{run.split('/')[0]}/init_noise")
    start = np.zeros((1, branches.conditional.target.latent_index.shape[1], noise.shape[1]), np.float32)
    start[0, : len(noise)] = noise
    sample = quick_jit(functools.partial(denoise, model=model.config, config=config, trajectory=True))
    final, steps = sample(model.params, branches, start)
    final = np.asarray(final)[0, : len(noise)]
    schedule = make_schedule(config)
    scales = np.where(
        (schedule.action == GUIDED)[:, None], [guidance.text_scale, guidance.image_scale], [1.0, 1.0]
    ).astype(np.float32)
    side = model.layout.pixels_per_token
    grid = (settings["image_shape"][0] // side, settings["image_shape"][1] // side)
    autoencoder = make_autoencoder(model.config.autoencoder)
    [picture] = decode_pictures(autoencoder, model.autoencoder_params, [final], [grid], model.config)

    yield Check(FILE, f"{run}/t", schedule.time, close())
    yield Check(FILE, f"{run}/cfg_used", scales, exact)
    states = np.concatenate([np.asarray(steps.latents)[:, 0, : len(noise)], final[None]])
    yield Check(FILE, f"{run}/x_t", states, close())
    if f"{run}/v_t" in reference.names(FILE):
        yield Check(FILE, f"{run}/v_t", np.asarray(steps.velocity)[:, 0, : len(noise)], close())
    yield Check(FILE, f"{run}/final_latent", final, close())
    yield Check(FILE, f"{run}/image", picture, within_one)


def within_one(actual: np.ndarray, expected: np.ndarray) -> None:
    """Pixels cut off to whole numbers: a rounding error may make a difference of one."""
    assert actual.shape == expected.shape
    difference = np.abs(actual.astype(int) - expected)
    assert difference.max() <= 1, f"{np.count_nonzero(difference > 1)} values differ by up to {difference.max()}"


def _in_order(values: jax.Array, cache: KVCache) -> np.ndarray:
    """Keys or values `[1, slots, ...]` in the order of the sequence, empty slots left out."""
    used = np.flatnonzero(cache.metadata.sample[0] > 0)
    return np.asarray(values)[0, used[np.argsort(cache.metadata.order[0, used])]]


def _velocities(model: _Model, branch: Branch, states: np.ndarray, times: np.ndarray) -> np.ndarray:
    """What one context predicts for given states."""
    unified, count = UnifiedModel(model.config), states.shape[1]

    @quick_jit
    def predict(x: jax.Array, t: jax.Array) -> Any:
        return unified.apply({"params": model.params}, branch.target, x, t, branch.cache, method="denoise")[0]

    padding = [(0, branch.target.latent_index.shape[1] - count), (0, 0)]
    return np.stack(
        [predict(np.pad(x, padding)[None], t.reshape(1, 1))[0, :count] for x, t in zip(states, times, strict=True)]
    )


def _encode(model: _Model, pixels: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The autoencoder's sample `[1, channels, rows, columns]` with the stored noise."""
    config = model.config.autoencoder
    autoencoder = make_autoencoder(config)
    moments = quick_jit(lambda x: autoencoder.apply({"params": model.autoencoder_params}, x, method="encode"))(
        pixels_to_float(pixels)[None]
    )
    latent = sample_latents(moments, jnp.asarray(noise.transpose(0, 2, 3, 1)), config.scale, config.shift)
    return np.asarray(latent).transpose(0, 3, 1, 2)


def _understanding(reference: Reference, model: _Model) -> Iterator[Check]:
    stated = reference.json("infer.json")["und"]
    image = model.vit_transform.resize(model.vae_transform.resize(reference.array(FILE, "und/image")))
    yield Check(FILE, "und/vit_input", to_float(image).transpose(2, 0, 1), close())
    context: Plan = (VitImage(pixels=image), Text(ids=tuple(stated["question_ids"])))
    count = token_count(context, model.layout)
    regions = lay_out((*context, Text(ids=())), model.layout, model.tokenizer)
    batch = context_batch([part(regions, 0, count)], model.layout)
    first = context_batch([part(regions, count)], model.layout).understanding
    first = TokenMetadata(*(x[:, :1] for x in first))
    assert [count, int(first.position[0, 0])] == [stated["kv_len"], stated["rope"]]
    no_latents = jnp.zeros((1, 0, model.config.latent_size))
    cache = quick_jit(functools.partial(read_context, model=model.config))(model.params, batch, no_latents)

    length = stated["max_length"]
    config = TextConfig(length)
    write = quick_jit(
        lambda cache, first: write_text(model.params, cache, first, model.tokenizer.start, (), model.config, config)
    )
    ids = write(cache, first)[0]
    yield Check(FILE, "und/token_ids", np.asarray(ids), exact)

    logits = _cached_logits(model, cache, first, ids)
    yield Check(FILE, "und/logits", logits, close())
    yield Check(FILE, "und/next_ids", np.argmax(logits, axis=-1).astype(np.int32), exact)

    whole = lay_out((*context, Text(ids=tuple(int(i) for i in ids[1:]))), model.layout, model.tokenizer)
    batch = context_batch([whole], model.layout)
    apply = quick_jit(functools.partial(UnifiedModel(model.config).apply, answers=True))
    predictions = apply({"params": model.params}, batch, no_latents, no_latents[..., 0])
    written = (batch.understanding.sample[0] > 0) & (batch.understanding.order[0] >= count)
    yield Check(FILE, "und/logits_no_cache", predictions.text_logits[0, np.flatnonzero(written)[:length]], close())


def _cached_logits(model: _Model, cache: KVCache, first: TokenMetadata, ids: jax.Array) -> np.ndarray:
    """Logits after each of the ids, read one by one."""

    @quick_jit
    def read(cache: KVCache, place: jax.Array) -> tuple[KVCache, jax.Array]:
        metadata = moved(first, place)
        logits, keys_values = token_logits(model.params, ids[None, place][:, None], metadata, cache, model.config)
        return with_token(cache, count + place, keys_values, metadata), logits[0, 0]

    count = cache.metadata.sample.shape[1]
    cache = fitted(cache, count + len(ids))
    logits = []
    for place in range(len(ids)):
        cache, following = read(cache, jnp.int32(place))
        logits.append(following)
    return np.stack(logits)
