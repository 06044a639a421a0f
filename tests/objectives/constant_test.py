"""The losses of constant predictors."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from tests.helpers.made_up_plans import TEXT_TO_IMAGE, UNDERSTANDING
from tests.helpers.small_model import model_batch, small_model, small_params
from uno_jax.batch import Batch
from uno_jax.models.config import training_layout
from uno_jax.objectives.config import ObjectiveConfig
from uno_jax.objectives.constant import HeldOut, label_entropy
from uno_jax.objectives.losses import ALIGNED, CAPTIONS, LOSSES, QUERIES
from uno_jax.parallel.mesh import host_mesh

LOSS = {loss.name: loss for loss in LOSSES}


def held_out(*batches: Batch, kind: str = "cosine") -> HeldOut:
    model, objective = small_model(), ObjectiveConfig(visual_loss=kind, align_loss="mse")
    return HeldOut(batches, small_params(model), model, objective, host_mesh())


def caption_entropy(*batches: Batch) -> float | None:
    return label_entropy(held_out(*batches), CAPTIONS.mask, labels=lambda batch: batch.caption_labels)


def with_captions(*labels: int) -> Batch:
    """One row with these labels on its caption tokens."""
    batch = model_batch([])
    padding = [0] * (batch.caption_labels.shape[1] - len(labels))
    return dataclasses.replace(
        batch,
        caption_labels=np.array([[*labels, *padding]], np.int32),
        caption_loss=np.array([[True] * len(labels) + [False] * len(padding)]),
    )


def test_the_loss_of_the_constant_predictor_of_labels_is_their_entropy():
    expected = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    np.testing.assert_allclose(caption_entropy(with_captions(7, 7), with_captions(5, 7)), expected)


def test_a_single_label_has_zero_entropy():
    assert caption_entropy(with_captions(5, 5, 5)) == 0


of_queries = functools.partial(LOSS["visual"].constant, mask=QUERIES.mask)
of_latents = functools.partial(LOSS["align"].constant, mask=ALIGNED.mask)


def with_targets(*targets: float) -> Batch:
    """One row of text to image with these targets, equal in every feature, on its first metaqueries."""
    batch, width = model_batch([TEXT_TO_IMAGE]), small_model().vision.hidden_size
    of_queries = np.zeros((*batch.query_index.shape, width), np.float32)
    of_queries[0, : len(targets)] = np.array(targets)[:, None]
    return dataclasses.replace(
        batch,
        target_patches=of_queries,
        vit_patches=np.zeros((*batch.vit_image.shape, width), np.float32),
        query_loss=np.arange(batch.query_index.shape[1])[None] < len(targets),
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mse", (2**2 + 0 + 2**2) / 3),  # distance from the mean, 3
        ("cosine", 0.0),  # all have the same direction
    ],
)
def test_the_constant_predictor_of_features_predicts_their_mean(kind, expected):
    constant = of_queries(held_out(with_targets(1.0, 3.0), with_targets(5.0), kind=kind))
    np.testing.assert_allclose(constant, expected, atol=1e-6)


def test_the_cosine_constant_predictor_is_the_mean_of_unit_targets():
    constant = of_queries(held_out(with_targets(9.0, 1.0, -5.0)))
    np.testing.assert_allclose(constant, (0 + 0 + 2) / 3, atol=1e-6)


def test_without_tokens_there_is_no_constant_predictor():
    batch = model_batch([UNDERSTANDING])
    assert caption_entropy(batch) is None
    assert of_queries(held_out(batch)) is None
    assert of_latents(held_out(batch)) is None


def test_the_constant_predictor_of_the_align_loss_predicts_the_mean_feature_of_latent_tokens():
    """Two of the features of the four latent tokens are 1, two are 3."""
    batch = model_batch([TEXT_TO_IMAGE], layout=training_layout(small_model(align_layer=1)))
    features = np.zeros((*batch.latent_index.shape, small_model().vision.hidden_size), np.float32)
    features[0, :4] = np.array([1, 3, 1, 3])[:, None]
    queries, vit = (np.zeros((*x.shape, features.shape[-1]), np.float32) for x in (batch.query_index, batch.vit_image))
    batch = dataclasses.replace(batch, align_patches=features, target_patches=queries, vit_patches=vit)
    np.testing.assert_allclose(of_latents(held_out(batch)), 1.0)
