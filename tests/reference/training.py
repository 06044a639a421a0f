"""One training forward and backward of the original, on all its samples in one pack, against `train.npz`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from tests.helpers.public_model import load_public
from tests.reference.harness import Check, Reference, close, gradient
from tests.reference.packing import pack_batch
from tests.reference.sequence import in_order, into_buffer, region, to_sequence
from uno_jax.interop.names import TensorName, model_tensors
from uno_jax.models.autoencoder import make_autoencoder, patchify_latents, sample_latents
from uno_jax.models.config import ModelConfig
from uno_jax.models.decoder import Streams
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.objectives.draws import Draws, shifted_time
from uno_jax.objectives.losses import loss_counts, reduce_losses, token_losses, total_loss

FILE, PACK = "train.npz", "all"
UNUSED = {
    # Adding a constant to a key shifts all scores of a query alike: what is stored is rounding noise.
    f"{FILE}/grad/vit_model.*.k_proj.bias": "mathematically zero",
}


def checks(reference: Reference) -> Iterator[Check]:
    """Latents, times, what enters the decoder, every layer, losses token by token, and all gradients."""
    checkpoint = load_public(reference.directory)
    config, params = checkpoint.config, jax.tree.map(jnp.asarray, checkpoint.params)
    batch, index = pack_batch(reference, PACK)
    latent = region(batch, index, "latent")
    padded = _padded_latents(reference, config, checkpoint.autoencoder_params)
    yield Check(FILE, "padded_latent", padded, close())
    shapes = reference.array("packing.npz", f"{PACK}/patchified_vae_latent_shapes")
    clean = patch_latents(reference.array(FILE, "padded_latent"), shapes, config.latent_patch_size)
    raw_times = reference.array("packing.npz", f"{PACK}/packed_timesteps")
    times = shifted_time(jnp.asarray(raw_times), reference.time_shift)
    yield Check(FILE, "timesteps_shifted", times, close())

    draws = Draws(
        latents=into_buffer(clean, latent),
        noise=into_buffer(reference.array(FILE, "noise"), latent),
        latent_times=into_buffer(np.asarray(times), latent),
        caption_times=jnp.zeros(batch.caption_ids.shape),
        query_times=jnp.zeros(batch.query_index.shape),
    )
    batch = jax.tree.map(jnp.asarray, batch)
    model = UnifiedModel(config)
    objective = ObjectiveConfig(answer_weight=1.0)

    @jax.jit
    def run(params: Any) -> tuple[Any, Any]:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            predictions, captured = model.apply(
                {"params": params}, batch, draws.noised, draws.latent_times, answers=True, mutable=["intermediates"]
            )
            losses = token_losses(predictions, batch, draws, objective)
            reduced = reduce_losses(losses, loss_counts(batch), objective)
            total = total_loss(reduced, {"flow": 1.0, "answer": 1.0, "caption": 0.0, "visual": 0.0})
            return total, (predictions, losses, reduced, captured["intermediates"])

        return jax.value_and_grad(loss, has_aux=True)(params)

    (total, (predictions, losses, reduced, captured)), gradients = run(params)
    yield from hidden_checks(FILE, model, params, batch, draws, index, captured)

    noised = np.asarray(batch.latent_loss[0])
    squared = jnp.square(predictions.velocity - (draws.noise - draws.latents))[0]
    yield Check(FILE, "mse", in_order(squared, latent, noised), close(relative=1e-4))
    yield Check(FILE, "mse_per_token", in_order(losses["flow"].value[0], latent, noised), close())
    text, answered = region(batch, index, "text"), np.asarray(batch.text_loss[0])
    yield Check(FILE, "ce_logits", in_order(predictions.text_logits[0], text, answered), close())
    yield Check(FILE, "ce", in_order(losses["answer"].value[0], text, answered), close())
    yield Check(FILE, "mse_mean", reduced["flow"], close())
    yield Check(FILE, "ce_mean", reduced["answer"], close())
    yield Check(FILE, "loss", total, close())
    yield from gradient_checks(reference, FILE, "grad", gradients, model_tensors(config))


def hidden_checks(
    file: str, model: UnifiedModel, params: Any, batch: Any, draws: Draws, index: Any, captured: Any
) -> Iterator[Check]:
    """`llm_input`, `layer0`.. and `last_hidden_state`, in the order of the original sequence."""
    (first, _) = model.apply({"params": params}, batch, draws.noised, draws.latent_times, method="embed")
    yield Check(file, "llm_input", to_sequence(first, index), close())
    layers: Streams = captured["decoder"]["layers"]["hidden"][0]
    for i in range(model.config.decoder.num_layers):
        yield Check(file, f"layer{i}", to_sequence(Streams(*(x[i] for x in layers)), index), close())

    def final(module: UnifiedModel) -> Streams:
        return module.decoder(first, batch.understanding, batch.generation)

    last = model.apply({"params": params}, method=final)
    yield Check(file, "last_hidden_state", to_sequence(last, index), close())


def gradient_checks(
    reference: Reference, file: str, group: str, gradients: Any, tensors: Sequence[TensorName]
) -> Iterator[Check]:
    """Every stored gradient of a group, in the public orientation."""
    flat = flatten_dict(gradients)
    stored = {name.removeprefix(f"{group}/") for name in reference.names(file) if name.startswith(f"{group}/")}
    for entry in tensors:
        if entry.public in stored:
            stored.discard(entry.public)
            if entry.public.startswith("vit_model") and entry.public.endswith("k_proj.bias"):
                continue
            leaf = np.asarray(flat[entry.path])
            leaf = leaf if entry.layer is None else leaf[entry.layer]
            yield Check(file, f"{group}/{entry.public}", entry.to_public(leaf), gradient())
    unknown = stored - {"metaqueries", "head.weight", "head.bias"}
    assert not unknown, f"{file}: gradients of tensors that we do not have: {sorted(unknown)}"


def patch_latents(padded: np.ndarray, shapes: np.ndarray, patch: int) -> np.ndarray:
    """Latent tokens of all images in order, from latents padded to the largest `[images, channels, H, W]`."""
    images = []
    for latents, (rows, columns) in zip(padded, shapes, strict=True):
        cropped = latents[:, : rows * patch, : columns * patch].transpose(1, 2, 0)
        images.append(np.asarray(patchify_latents(jnp.asarray(cropped[None]), patch)[0]))
    return np.concatenate(images)


def _padded_latents(reference: Reference, config: ModelConfig, params: Any) -> np.ndarray:
    """What the original encodes: all images of the pack, padded to the largest."""
    autoencoder = make_autoencoder(config.autoencoder)
    images = reference.array("packing.npz", f"{PACK}/padded_images").transpose(0, 2, 3, 1)
    noise = reference.array(FILE, "vae_noise").transpose(0, 2, 3, 1)
    moments = jax.jit(lambda x: autoencoder.apply({"params": params}, x, method="encode"))(images)
    latents = sample_latents(moments, jnp.asarray(noise), config.autoencoder.scale, config.autoencoder.shift)
    return np.asarray(latents).transpose(0, 3, 1, 2)
