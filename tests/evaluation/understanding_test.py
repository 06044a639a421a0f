"""`evaluate understanding`: the same questions before and after, on the small model."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.evaluate_command import fail, succeed
from tests.helpers.made_up_plans import patches_of
from tests.helpers.published_exams import write_dataset, write_pope
from tests.helpers.small_loaded import save_small_checkpoint, small_generator
from tests.helpers.small_model import small_model, small_params
from uno_jax.data.layout import lay_out
from uno_jax.data.plans import Text, VitImage
from uno_jax.data.sampling_rows import context_batch
from uno_jax.evaluation.understanding.expected import expected
from uno_jax.evaluation.understanding.parameters import UNDERSTANDING
from uno_jax.models.unified import UnifiedModel
from uno_jax.training.state import UNO_TRAINABLE, is_under_any
from uno_jax.training.stored_trees import named_leaves

pytestmark = pytest.mark.usefixtures("quick_compiles")


def changed_by(prefixes: tuple[str, ...], by: float = 0.5):
    """Returns the small parameters, with noise in those below the prefixes."""
    random = np.random.default_rng(1)

    def moved(path, leaf):
        name = "/".join(str(key.key) for key in path)
        return leaf + by * random.standard_normal(leaf.shape, np.float32) if is_under_any(name, prefixes) else leaf

    return jax.tree_util.tree_map_with_path(moved, small_params(small_model()))


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    """Data, and checkpoints before, after UNO (with a changed generation expert), and with a changed reading one."""
    folder = tmp_path_factory.mktemp("understanding")
    return {
        "data": write_dataset(folder / "data"),
        "pope": write_pope(folder / "pope"),
        "before": save_small_checkpoint(folder / "before"),
        "uno": save_small_checkpoint(folder / "uno", params=changed_by(UNO_TRAINABLE)),
        "other": save_small_checkpoint(folder / "other", params=changed_by(("decoder/layers/understanding",))),
    }


def sit(places: dict[str, Path], after: str, out: Path, *more: str, run=succeed) -> str:
    return run(
        "understanding",
        f"--checkpoint={places[after]}",
        f"--before={places['before']}",
        f"--held_out_answers={places['data']}",
        f"--held_out_captions={places['data']}",
        f"--pope={places['pope']}",
        f"--out={out}",
        "--batch=2",
        *more,
    )


@pytest.fixture(scope="module")
def after_uno(places, tmp_path_factory) -> tuple[Path, str]:
    """The folder and the output of a comparison with a model whose understanding expert was frozen."""
    out = tmp_path_factory.mktemp("out") / "out"
    return out, sit(places, "uno", out, "--unchanged")


def test_with_a_frozen_understanding_expert_all_results_are_equal_bit_for_bit(after_uno):
    out, printed = after_uno
    for exam in ("held_out_answers", "held_out_captions", "pope"):
        assert (out / "before" / exam / "answers.jsonl").read_bytes() == (
            out / "after" / exam / "answers.jsonl"
        ).read_bytes()
    assert "held_out_answers: 0 of 3 results have changed" in printed
    assert re.search(r"share all \d+ inputs of answers", printed)


def test_a_changed_understanding_expert_is_noticed(places, tmp_path):
    printed = sit(places, "other", tmp_path / "out")
    assert "inputs of answers have changed: decoder/layers/understanding/" in printed
    assert "held_out_captions: 2 of 2 results have changed" in printed
    message = sit(places, "other", tmp_path / "out", "--unchanged", run=fail)
    assert "parameters that answers depend on have changed, so understanding was not frozen" in message


def test_answers_are_the_same_after_an_interruption(places, after_uno, tmp_path):
    whole, _ = after_uno
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    file = out / "after/pope/answers.jsonl"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) - 3])  # the last batch was cut short
    assert "pope: 4 questions, 2 to answer, 2 answered" in sit(places, "uno", out)
    assert file.read_bytes() == content


def test_answers_of_another_checkpoint_do_not_mix(places, after_uno):
    out, _ = after_uno
    assert "has answers with checkpoint.sha256" in sit(places, "other", out, run=fail)


def test_answers_are_in_the_published_format_and_scored(after_uno):
    out, _ = after_uno
    results = json.loads((out / "after/pope/results.json").read_text())
    assert [each["question_id"] for each in results] == [0, 1, 2, 3]
    score = json.loads((out / "after/pope/score.json").read_text())
    assert (score["items_scored"], score["items_expected"]) == (4, 4)
    content = json.loads((out / "understanding.json").read_text())
    assert content["changed"] == []
    assert content["exams"]["held_out_captions"]["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_every_parameter_is_read_with_vit_tokens_or_trained_by_uno():
    names = named_leaves(small_params(small_model()))
    assert all(is_under_any(name, UNDERSTANDING) != is_under_any(name, UNO_TRAINABLE) for name in names)


PLAN = (VitImage(pixels=patches_of(2, 1)), Text(ids=(4, 5)))


def expected_with(params):
    """How well two texts are expected by the small model with other parameters."""
    reader = small_generator().reader
    reader = dataclasses.replace(reader, model=dataclasses.replace(reader.model, params=params))
    return expected(reader, [PLAN, PLAN[:1]], [(6, 7, 8), (9,)])


@pytest.fixture(scope="module")
def unchanged():
    return expected_with(small_params(small_model()))


@pytest.mark.parametrize("prefix", UNDERSTANDING)
def test_each_of_the_parameters_that_are_compared_has_an_effect(prefix, unchanged):
    assert expected_with(changed_by((prefix,))) != unchanged


def test_the_cross_entropy_is_that_of_a_pass_without_a_cache(unchanged):
    first, second = unchanged
    assert (first.tokens, second.tokens) == (4, 2)
    model, layout = small_generator().reader.model, small_generator().reader.layout
    batch = context_batch([lay_out((*PLAN, Text(ids=(6, 7, 8), answer=True)), layout, model.tokenizer)], layout)
    no_latents = jnp.zeros((1, 0, model.config.latent_size))
    predict = jax.jit(lambda *inputs: UnifiedModel(model.config).apply(*inputs, jnp.zeros((1, 1)), answers=True))
    logits = predict({"params": model.params}, batch, no_latents).text_logits[0]
    each = -jax.nn.log_softmax(logits)[np.arange(len(logits)), batch.text_labels[0]]
    assert first.nats == pytest.approx(float(each[batch.text_loss[0]].sum()), rel=1e-5)
