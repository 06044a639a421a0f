"""Held-out losses of runs: of the same records and draws whatever the method, the seed and the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs import openmoji_sft
from tests.helpers.tiny_run import tiny, tiny_uno
from uno_jax.batch import TASKS
from uno_jax.config import ConfigError
from uno_jax.data.records import record_tasks
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.parallel.mesh import make_mesh
from uno_jax.run.config import RunConfig
from uno_jax.run.context import RunContext
from uno_jax.run.held_out import held_out_batches, held_out_data, held_out_numbers, make_held_out_losses, open_held_out
from uno_jax.run.programs import new_state
from uno_jax.run.start import start_params


def context_of(config: RunConfig, dataset: Path) -> RunContext:
    tokenizer = Tokenizer.from_directory(dataset / "tokenizer")
    return RunContext(config, tokenizer, make_mesh(config.mesh), {}, dataset, open_held_out(config))


def numbers_of(config: RunConfig) -> list[int]:
    return held_out_numbers(config, open_held_out(config))


def losses_at_the_start(config: RunConfig, dataset: Path) -> dict[str, float]:
    """Held-out losses of randomly initialised parameters, which are the same for all methods."""
    params = start_params(tiny_uno(dataset), make_mesh(config.mesh)).params
    if not config.model.num_metaqueries:
        params = {name: part for name, part in params.items() if name != "metaqueries"}
    state = new_state(config, params, make_mesh(config.mesh))
    return make_held_out_losses(context_of(config, dataset), state).measure(state)


@pytest.fixture(scope="module")
def of_uno(dataset) -> dict[str, float]:
    return losses_at_the_start(tiny_uno(dataset), dataset)


def assert_same(actual: dict[str, float], expected: dict[str, float], *names: str) -> None:
    for name in names:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5, err_msg=name)


def test_every_method_has_the_same_flow_loss_at_the_same_parameters(dataset, of_uno):
    sft = losses_at_the_start(tiny(openmoji_sft.get_config(), dataset), dataset)
    assert_same(sft, of_uno, "flow", "prompt_dropped/flow", "flow/editing", "flow/t0.50-0.75")
    assert sft["records"] == of_uno["records"] == 6
    captions = losses_at_the_start(tiny_uno(dataset, **{"data.method": "uno_caption"}), dataset)
    assert_same(captions, of_uno, "flow", "caption", "prompt_dropped/caption")


def test_the_seeds_the_supervision_and_the_rows_of_a_run_do_not_matter(dataset, of_uno):
    changes = {"seed": 5, "data.seed": 6, "data.supervise": "prompt_dropped", "data.max_samples_per_row": 1}
    assert_same(losses_at_the_start(tiny_uno(dataset, **changes), dataset), of_uno, "flow", "caption", "visual")


def test_the_records_depend_on_the_split_and_the_trained_tasks(dataset):
    chosen = numbers_of(tiny_uno(dataset))
    assert numbers_of(tiny_uno(dataset, **{"data.method": "sft", "seed": 3})) == chosen
    edits = numbers_of(tiny_uno(dataset, **{"data.task_weights": {"editing": 1.0}}))
    assert sorted(edits) == np.flatnonzero(record_tasks(dataset, "test") == TASKS.index("editing")).tolist()
    assert len(numbers_of(tiny_uno(dataset, **{"evaluation.records": 1000}))) == 24


def test_a_split_without_records_of_the_trained_tasks_is_rejected(dataset):
    config = tiny_uno(dataset, **{"data.task_weights": {"understanding": 1.0}})
    with pytest.raises(ConfigError, match=r"evaluation\.records is 6, but split 'test' .* no record of understanding"):
        numbers_of(config)


def test_held_out_batches_are_kept_encoded_and_padded_to_whole_batches(dataset):
    config = tiny_uno(dataset, **{"data.max_samples_per_row": 1})
    data = held_out_data(config, prompts=True)
    batches = held_out_batches(context_of(config, dataset), data, [0, 1, 2]).batches
    assert [type(batch.latent_moments) for batch in batches] == [np.ndarray] * 2
    assert all(np.any(batch.latent_moments) for batch in batches)
    assert [np.count_nonzero(batch.generation.sample[:, 0]) for batch in batches] == [2, 1]
    assert {batch.text_ids.shape[0] for batch in batches} == {config.data.rows}


def test_records_that_fit_no_row_are_left_out_and_named(dataset):
    config = tiny_uno(dataset, **{"data.caption_tokens": 5})
    batches, left_out = held_out_batches(context_of(config, dataset), held_out_data(config, prompts=True), range(24))
    samples = sum(len(set(row[row > 0].tolist())) for batch in batches for row in batch.generation.sample)
    assert left_out
    assert samples + len(left_out) == 24
    assert {sample.cause for sample in left_out} == {"caption_tokens"}
