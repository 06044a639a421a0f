"""Sampling images: what the results depend on, and what is computed."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.made_up_pictures import (
    DRAWN,
    EDITED,
    INSTRUCTION,
    MODEL,
    PARAMS,
    PROMPT,
    SEED,
    branches_of,
    latents_in,
    noise_of,
    pictures,
    sample,
)
from tests.helpers.made_up_plans import TOKENIZER, batch_of, latents_of
from tests.helpers.made_up_records import LAYOUT
from tests.helpers.small_model import CAPACITIES, quick_jit
from uno_jax.attention.attend import concatenated
from uno_jax.attention.metadata import NOISED, pairwise_visible
from uno_jax.batch import Batch
from uno_jax.data.layout import lay_out
from uno_jax.data.plans import NoisedTarget, Text
from uno_jax.data.rows import make_batch, pack_row
from uno_jax.inference.picture_inputs import GuidedPlan, guided_plan
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.autoencoder_batch import encode_batch
from uno_jax.models.unified import UnifiedModel
from uno_jax.objectives.draws import draw
from uno_jax.sampling.cache import fitted
from uno_jax.sampling.decode import decode_pictures
from uno_jax.sampling.flow import Branch, Branches, denoise, sample_latents
from uno_jax.sampling.guidance import GuidanceConfig
from uno_jax.sampling.schedule import FlowConfig

STRONG = GuidanceConfig(text_scale=3.0, image_scale=2.0, interval=(0.0, 1.0))
FLOW = FlowConfig(timesteps=4, time_shift=2.0, guidance=STRONG)
PLAIN = dataclasses.replace(FLOW, guidance=GuidanceConfig(text_scale=1.0))
WINDOW = dataclasses.replace(FLOW, guidance=dataclasses.replace(STRONG, interval=(0.6, 0.9)))


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def blank(plan: GuidedPlan) -> NoisedTarget:
    return NoisedTarget(pixels=np.zeros((plan.height, plan.width, 3), np.uint8))


def test_a_step_follows_the_velocity_that_the_model_predicts_without_a_cache():
    """One step from pure noise: x_0 = noise - velocity."""
    branches = branches_of([EDITED, DRAWN])
    start = noise_of(branches)
    final, _ = sample(branches, dataclasses.replace(PLAIN, timesteps=2), start)
    batch = batch_of(*([(*plan.context, blank(plan))] for plan in (EDITED, DRAWN)), capacities=CAPACITIES)
    noised = np.array(latents_in(batch))
    here, there = batch.generation.role == NOISED, np.asarray(branches.conditional.target.generation.role) == NOISED
    noised[here] = start[there]
    predict = quick_jit(lambda params, *inputs: UnifiedModel(MODEL).apply({"params": params}, *inputs).velocity)
    velocity = predict(PARAMS, batch, noised, here.astype(np.float32))
    close(np.asarray(final)[there], start[there] - np.asarray(velocity)[here])


def test_every_state_follows_from_the_previous_one():
    final, steps = sample(branches_of([DRAWN]), FLOW)
    times = np.array([1, 0.8, 0.5, 0], np.float32)
    states = np.concatenate([steps.latents, final[None]])
    for state, following, velocity, step in zip(states, states[1:], steps.velocity, np.diff(times), strict=False):
        np.testing.assert_allclose(following, state + step * velocity, atol=1e-5)


def test_every_valid_token_of_a_noised_block_sees_all_valid_tokens_of_the_block_and_its_context():
    """Flash attention relies on it: it gets the numbers of valid tokens and no mask."""
    for branch in branches_of([EDITED, DRAWN], rows=3):
        block, context = concatenated((branch.target.understanding, branch.target.generation)), branch.cache.metadata
        keys = concatenated((context, block))
        valid = (block.sample > 0)[:, :, None] & (keys.sample > 0)[:, None, :]
        np.testing.assert_array_equal(pairwise_visible(block, keys), valid)


# What an image depends on


@pytest.mark.parametrize("config", [FLOW, WINDOW], ids=["guided", "window"])
def test_an_image_in_a_batch_equals_the_image_alone(config):
    """A batch may mix kinds of context and image sizes, with padding in the remaining rows."""
    together = pictures([EDITED, DRAWN], config, rows=2)
    close(together[0], pictures([EDITED], config, rows=2)[0])
    close(together[1], pictures([DRAWN], config)[0])


def twice(x: Any) -> np.ndarray:
    """Doubles the number of tokens with padding."""
    return np.concatenate([x, np.zeros_like(x)], axis=1)


def test_empty_slots_and_padding_latents_have_no_effect():
    branches = branches_of([DRAWN])

    def padded(branch: Branch) -> Branch:
        fields = {name: x for name, x in branch.target.shared().items() if name == "generation" or "latent" in name}
        return Branch(fitted(branch.cache, 24), dataclasses.replace(branch.target, **jax.tree.map(twice, fields)))

    final, _ = sample(Branches(padded(branches.conditional), padded(branches.without_text)), FLOW)
    expected, _ = sample(branches, FLOW)
    close(final, twice(expected))


def noise_bits(plans: list[GuidedPlan], row: int, rows: int | None = None) -> np.ndarray:
    branches = branches_of(plans, rows)
    return noise_of(branches)[row][np.asarray(branches.conditional.target.generation.sample)[row] > 0]


def test_the_same_seed_gives_the_same_bits_of_noise_in_every_batch():
    alone = noise_bits([DRAWN], 0)
    np.testing.assert_array_equal(noise_bits([EDITED, DRAWN], 1), alone)
    np.testing.assert_array_equal(noise_bits([DRAWN, EDITED, EDITED], 0, rows=5), alone)


def test_a_larger_image_starts_with_the_same_noise():
    wide = dataclasses.replace(DRAWN, height=24, width=32)
    np.testing.assert_array_equal(noise_bits([wide], 0)[:4], noise_bits([DRAWN], 0))


def test_another_seed_gives_other_noise():
    other = dataclasses.replace(DRAWN, seed=DRAWN.seed + 1)
    assert np.abs(noise_bits([other], 0) - noise_bits([DRAWN], 0)).max() > 0.1


def test_the_noise_is_what_the_train_step_draws_for_that_occurrence():
    regions = lay_out((*PROMPT, NoisedTarget(pixels=latents_of(2, 2))), LAYOUT, TOKENIZER, occurrence=DRAWN.seed)
    pixels = make_batch([pack_row([regions], CAPACITIES, LAYOUT)])
    moments = np.zeros((*pixels.latent_index.shape, 2 * MODEL.latent_size), np.float32)
    batch = Batch(**pixels.shared(), latent_moments=moments)
    drawn = quick_jit(lambda batch: draw(batch, SEED, 1.0, MODEL.autoencoder).noise)(batch)
    np.testing.assert_array_equal(np.asarray(drawn)[0, :4], noise_bits([DRAWN], 0))


def test_padding_latents_are_zero_at_every_step():
    branches = branches_of([DRAWN])
    real = np.asarray(branches.conditional.target.generation.sample) > 0
    assert not noise_of(branches)[~real].any()
    assert not np.asarray(sample(branches, FLOW)[0])[~real].any()


def test_an_empty_context_gives_an_image():
    [picture] = pictures([guided_plan((), 16, 16)], FLOW)
    assert np.isfinite(picture).all()


# Guidance


def test_an_image_free_context_equal_to_the_context_needs_no_pass_of_its_own():
    """In text to image the image scale still applies, as in BAGEL's public implementation."""
    explicit = dataclasses.replace(DRAWN, without_image=DRAWN.context)
    close(pictures([DRAWN], FLOW)[0], pictures([explicit], FLOW)[0])
    text_only = dataclasses.replace(FLOW, guidance=dataclasses.replace(STRONG, image_scale=1.0, rescale_min=1.0))
    both = dataclasses.replace(FLOW, guidance=dataclasses.replace(STRONG, rescale_min=1.0))
    assert np.abs(pictures([DRAWN], both)[0] - pictures([DRAWN], text_only)[0]).max() > 1e-2


@pytest.mark.parametrize(
    "texts", [(*PROMPT, Text(ids=(9, 9))), (*PROMPT, *INSTRUCTION)], ids=["a beginning", "a beginning and more"]
)
def test_an_image_free_context_that_extends_its_beginning_equals_one_read_at_once(texts):
    """Items that are equal but not identical objects are read again."""
    shared = guided_plan(texts, 16, 16)
    shared = dataclasses.replace(shared, without_image=shared.without_image or texts[:1])
    equal = tuple(Text(ids=item.ids) for item in shared.without_image)
    close(pictures([shared], FLOW)[0], pictures([dataclasses.replace(shared, without_image=equal)], FLOW)[0])


def test_a_negative_prompt_replaces_the_empty_prompt():
    """Its velocities equal those of an image with this prompt."""
    negative = guided_plan(INSTRUCTION, 16, 16, negative=(9, 9, 9))
    asked_for = guided_plan(negative.without_text, 16, 16)
    one_step = dataclasses.replace(PLAIN, timesteps=2)
    without_text = branches_of([negative]).without_text
    close(sample(Branches(without_text), one_step)[0][:, :4], np.array(pictures([asked_for], one_step)))


def test_other_numbers_in_a_config_reuse_the_program():
    branches = branches_of([DRAWN])
    seen = []
    for scale, shift in ((3.0, 2.0), (4.0, 3.0)):
        guidance = dataclasses.replace(STRONG, text_scale=scale, rescale_min=0.1 * scale)
        config = dataclasses.replace(FLOW, time_shift=shift, guidance=guidance)
        seen.append(jax.make_jaxpr(lambda b, config=config: sample_latents(PARAMS, b, MODEL, config))(branches))
    inner = [next(e for e in jaxpr.eqns if e.params.get("name") == "_denoise").params["jaxpr"] for jaxpr in seen]
    assert str(inner[0]) == str(inner[1])


# What is computed


def layer_rows(config: FlowConfig, plans: list[GuidedPlan]) -> list[set[int]]:
    """Number of latent rows that run through the generation expert's layers, for each kind of step in the program."""
    branches = branches_of(plans)
    start = noise_of(branches)
    jaxpr = jax.make_jaxpr(lambda b: denoise(PARAMS, b, start, MODEL, config)[0])(branches)
    [switch] = [e for e in _equations(jaxpr.jaxpr) if e.primitive.name == "cond"] or [None]
    kinds = [branch.jaxpr for branch in switch.params["branches"]] if switch else [jaxpr.jaxpr]
    counted = []
    for kind in kinds:
        shapes = [e.outvars[0].aval.shape for e in _equations(kind) if e.primitive.name == "dot_general"]
        tokens = {shape[0] for shape in shapes if shape[-1] == MODEL.decoder.mlp_size}
        # Each pass has two kinds of tokens per row: its latents and its two delimiters.
        rows = {count // start.shape[1] for count in tokens if count // start.shape[1] * 2 in tokens}
        assert tokens == {per_row * row for row in rows for per_row in (2, start.shape[1])}
        counted.append(rows)
    return counted


def _equations(jaxpr: Any):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def test_exactly_the_branches_that_guidance_needs_run_in_one_pass():
    assert layer_rows(PLAIN, [EDITED]) == [{1}]
    assert layer_rows(FLOW, [DRAWN]) == [{2}]
    assert layer_rows(FLOW, [EDITED]) == [{3}]
    assert layer_rows(FLOW, [EDITED, DRAWN]) == [{6}]
    text_only = dataclasses.replace(FLOW, guidance=dataclasses.replace(STRONG, image_scale=1.0))
    assert layer_rows(text_only, [EDITED]) == [{2}]


def test_outside_the_interval_only_the_conditional_branch_runs():
    assert layer_rows(WINDOW, [EDITED]) == [{3}, {1}]


def test_extrapolated_steps_run_no_layer():
    assert layer_rows(dataclasses.replace(FLOW, timesteps=8, refresh_every=3), [EDITED]) == [{3}, set()]


# Faster sampling


def test_a_second_order_solver_is_nearer_to_many_small_steps_than_euler_at_the_same_cost():
    finest = dataclasses.replace(PLAIN, timesteps=129)
    [exact] = pictures([DRAWN], finest)
    errors = [
        np.linalg.norm(pictures([DRAWN], dataclasses.replace(PLAIN, timesteps=17, solver_order=order))[0] - exact)
        for order in (1, 2)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_extrapolated_features_give_nearly_the_same_image():
    fine = dataclasses.replace(PLAIN, timesteps=33)
    [exact] = pictures([DRAWN], fine)
    norm = np.linalg.norm(exact)
    differences = [
        np.linalg.norm(pictures([DRAWN], dataclasses.replace(fine, refresh_every=3, feature_order=order))[0] - exact)
        for order in (0, 1)
    ]
    assert 0 < differences[1] < differences[0] < 0.1 * norm


def test_extrapolation_uses_the_latents_and_time_of_its_own_step():
    """With the features of the step itself, the extrapolated velocity equals the computed one."""
    branches = branches_of([DRAWN])
    start, target, cache = noise_of(branches), branches.conditional.target, branches.conditional.cache
    time = jnp.full((1, 1), 0.7)
    apply = quick_jit(UnifiedModel(MODEL).apply, static_argnames="method")
    velocity, added = apply({"params": PARAMS}, target, start, time, cache, method="denoise")
    again = apply({"params": PARAMS}, target, start, time, added, method="denoise_with")
    close(again[:, :4], velocity[:, :4])


def test_decoded_images_equal_the_encoded_ones():
    autoencoder, grids = make_autoencoder(MODEL.autoencoder), [(2, 2), (1, 2)]
    pixels = [latents_of(*grid) for grid in grids]
    batch = batch_of(*([(NoisedTarget(pixels=p),)] for p in pixels), capacities=CAPACITIES)
    encoded = encode_batch(autoencoder, {}, batch, MODEL)
    latents = quick_jit(lambda batch: draw(batch, SEED, 1.0, MODEL.autoencoder).latents)(encoded)
    tokens = [np.asarray(latents[i, : rows * columns]) for i, (rows, columns) in enumerate(grids)]
    decoded = decode_pictures(autoencoder, {}, tokens, grids, MODEL)
    for picture, original in zip(decoded, pixels, strict=True):
        assert picture.dtype == np.uint8
        assert np.abs(picture.astype(int) - original).max() <= 1
