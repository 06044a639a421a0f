"""The tables that a run prints."""

from __future__ import annotations

import io

import jax
import jax.numpy as jnp
import rich.console

from uno_jax.models.config import ModelConfig
from uno_jax.training.initialise import abstract_params
from uno_jax.training.report import held_out_table, parameters_by_part, startup_table
from uno_jax.training.state import UNO_TRAINABLE, partition


def printed(table: object) -> str:
    console = rich.console.Console(file=io.StringIO(), width=100)
    console.print(table)
    return console.file.getvalue()


def test_parts_of_the_published_model_have_the_published_sizes():
    trainable, frozen = partition(abstract_params(ModelConfig()), UNO_TRAINABLE)
    parts = parameters_by_part(trainable, frozen)
    assert round(parts["generation expert"][0] / 1e9, 3) == 6.526
    assert round(parts["vision encoder"][1] / 1e9, 3) == 0.403
    public = sum(sum(counts) for part, counts in parts.items() if not part.startswith("metaqueries"))
    # The public checkpoint also stores two fixed tables, which are computed here.
    assert round((public + (64**2 + 70**2) * 3584) / 1e9, 3) == 14.607


def test_the_first_table_shows_parameters_tokens_and_facts():
    kernel = jax.ShapeDtypeStruct((1000, 2), jnp.float32)
    table = startup_table(
        "10 steps",
        {"latent_in": {"kernel": kernel}},
        {"vision": {"kernel": kernel}},
        {"encoder": kernel},
        {"caption": 1024},
        [("output", "/somewhere/that/is/long/" + "x" * 20)],
    )
    text = printed(table)
    assert "10 steps" in text
    assert [line.split()[-2:] for line in text.splitlines() if "vision encoder" in line] == [["k", "frozen"]]
    assert "2.00 k trainable" in text
    assert "4.00 k frozen" in text
    assert "1,024" in text
    assert "x" * 20 in text


def test_the_last_table_marks_losses_that_decreased():
    before = {"flow": 2.0, "caption": 1.0, "visual": 0.5, "flow/editing": 9.0}
    after = {"flow": 1.0, "caption": 1.5, "visual": 0.4, "flow/editing": 9.0}
    text = printed(held_out_table(before, after, {"caption": 3.0}, steps=10))
    rows = {line.split("│")[0].strip(): line for line in text.splitlines() if "│" in line}
    assert set(rows) == {"flow matching", "caption", "visual"}
    assert "NOT lower" in rows["caption"]
    assert "3.0000" in rows["caption"]
    assert "NOT" not in rows["flow matching"]


def test_an_unknown_start_is_shown_as_unknown():
    assert "unknown" in printed(held_out_table(None, {"flow": 1.0}, {}, steps=10))
