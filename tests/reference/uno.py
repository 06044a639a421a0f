"""The joint objective of the original, on a text-to-image and an editing sample in one pack, against `uno.npz`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers.public_model import load_public
from tests.reference.harness import Check, Reference, close, gradient
from tests.reference.packing import uno_batch
from tests.reference.sequence import in_order, into_buffer, region
from tests.reference.training import gradient_checks, hidden_checks, patch_latents
from uno_jax.interop.names import model_tensors
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.objectives.distances import visual_distance
from uno_jax.objectives.draws import Draws, shifted_time
from uno_jax.objectives.losses import loss_counts, reduce_losses, token_losses, total_loss
from uno_jax.training.state import UNO_TRAINABLE, merge, partition

FILE = "uno.npz"
UNUSED = {
    f"{FILE}/in/vae_noise": "train.npz checks the sampling; here we start from in/padded_latent",
}


def checks(reference: Reference) -> Iterator[Check]:
    """Times, x_t, every layer, predictions, losses, and the gradients of the sum and of each supervision loss."""
    checkpoint = load_public(reference.directory)
    stored = reference.json("uno.json")
    table = reference.array(FILE, "param/metaqueries")
    config = dataclasses.replace(checkpoint.config, num_metaqueries=len(table))
    head = {"kernel": reference.array(FILE, "param/head.weight").T, "bias": reference.array(FILE, "param/head.bias")}
    params = {**checkpoint.params, "metaqueries": {"table": table, "head": head}}
    params = jax.tree.map(jnp.asarray, params)

    batch, index = uno_batch(reference)
    draws, draw_checks = _draws(reference, batch, index, config.latent_patch_size)
    yield from draw_checks
    batch = jax.tree.map(jnp.asarray, batch)
    objective = ObjectiveConfig(**{f"{name}_weight": weight for name, weight in stored["weights"].items()})
    model = UnifiedModel(config)
    trainable, frozen = partition(params, UNO_TRAINABLE)

    def losses_of(trainable: Any) -> tuple[dict[str, jax.Array], Any]:
        predictions, captured = model.apply(
            {"params": merge(trainable, frozen)}, batch, draws.noised, draws.latent_times, mutable=["intermediates"]
        )
        losses = token_losses(predictions, batch, draws, objective)
        return reduce_losses(losses, loss_counts(batch), objective), (predictions, losses, captured["intermediates"])

    @jax.jit
    def run(trainable: Any) -> tuple[Any, Any, Any, Any]:
        reduced, pull_back, aux = jax.vjp(losses_of, trainable, has_aux=True)

        def pull(weights: dict[str, float]) -> Any:
            return pull_back({name: jnp.float32(weights.get(name, 0.0)) for name in reduced})[0]

        gradients = {
            "grad_total": pull(stored["weights"]),
            "grad_caption": pull({"caption": 1.0}),
            "grad_visual": pull({"visual": 1.0}),
        }
        return reduced, total_loss(reduced, stored["weights"]), gradients, aux

    reduced, total, gradients, (predictions, losses, captured) = run(trainable)
    yield from hidden_checks(FILE, model, params, batch, draws, index, captured)
    yield from _prediction_checks(batch, index, draws, predictions, losses)
    for name in ("flow", "caption", "visual"):
        yield Check(FILE, f"loss_{name}", reduced[name], close())
    yield Check(FILE, "loss_total", total, close())
    tensors = model_tensors(config)
    for group, tree in gradients.items():
        yield from gradient_checks(reference, FILE, group, tree, tensors)
    metaqueries = gradients["grad_total"]["metaqueries"]
    yield Check(FILE, "grad_total/metaqueries", metaqueries["table"], gradient())
    yield Check(FILE, "grad_total/head.weight", metaqueries["head"]["kernel"].T, gradient())
    yield Check(FILE, "grad_total/head.bias", metaqueries["head"]["bias"], gradient())


def _draws(reference: Reference, batch: Any, index: Any, patch: int) -> tuple[Draws, list[Check]]:
    """The stored latents, noise and times as the draws of our batch."""
    latent, caption, query = (region(batch, index, name) for name in ("latent", "caption", "query"))
    shapes = reference.array(FILE, "in/patchified_vae_latent_shapes")
    clean = patch_latents(reference.array(FILE, "in/padded_latent"), shapes, patch)
    raw = reference.array(FILE, "in/timesteps_raw")
    times = np.asarray(shifted_time(jnp.asarray(raw), reference.time_shift))
    draws = Draws(
        latents=into_buffer(clean, latent),
        noise=into_buffer(reference.array(FILE, "in/noise"), latent),
        latent_times=into_buffer(times, latent),
        caption_times=jnp.zeros((1, len(caption))),
        query_times=jnp.zeros((1, len(query))),
    )
    return draws, [
        Check(FILE, "in/packed_latent_clean", clean, close()),
        Check(FILE, "in/timesteps", times, close()),
        Check(FILE, "in/x_t", in_order(draws.noised[0], latent), close()),
    ]


def _prediction_checks(batch: Any, index: Any, draws: Draws, predictions: Any, losses: Any) -> Iterator[Check]:
    latent, caption, query = (region(batch, index, name) for name in ("latent", "caption", "query"))
    noised, labelled = np.asarray(batch.latent_loss[0]), np.asarray(batch.caption_loss[0])
    yield Check(FILE, "v_pred", in_order(predictions.velocity[0], latent, noised), close())
    yield Check(FILE, "v_target", in_order((draws.noise - draws.latents)[0], latent, noised), close())
    yield Check(FILE, "caption_logits", in_order(predictions.caption_logits[0], caption, labelled), close())
    yield Check(FILE, "caption_ce", in_order(losses["caption"].value[0], caption, labelled), close())
    prediction, target = predictions.query_prediction[0], predictions.query_target[0]
    yield Check(FILE, "query_pred", in_order(prediction, query), close())
    yield Check(FILE, "query_target", in_order(target, query), close())
    yield Check(FILE, "query_cosine", in_order(1 - losses["visual"].value[0], query), close())
    mse = in_order(visual_distance(prediction, target, "mse"), query).mean()
    yield Check(FILE, "loss_visual_mse", mse, close())
