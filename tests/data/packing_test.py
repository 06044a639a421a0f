"""Predicted rows: those that the pipeline makes of samples of the same lengths."""

import numpy as np
import pytest

from tests.helpers.made_up_records import (
    LAYOUT,
    make_records,
    mixture_of,
    small_config,
    small_inputs,
    small_tokenizer,
)
from uno_jax.batch import REGIONS
from uno_jax.data.packing import pack
from uno_jax.data.pipeline import batches_of_mixture
from uno_jax.data.samples import read_sample


def lengths(*samples: tuple[int, int]) -> np.ndarray:
    """Returns samples with these numbers of text and latent tokens."""
    return np.array([(text, 0, 0, 0, latent) for text, latent in samples])


CAPACITIES = {"text": 10, "vit": 0, "caption": 0, "query": 0, "latent": 8}


@pytest.mark.parametrize("limit", [0, 2])
def test_predicted_rows_are_those_of_the_pipeline(limit):
    records = make_records(30)
    options = {"virtual_shards": 1, "rows": 1, "epochs": 1, "shuffle": False, "max_samples_per_row": limit}
    config = small_config(text_dropout=0.0, vae_dropout=0.0, vit_dropout=0.0, **options)
    (part,) = mixture_of(records, config).parts
    samples = [read_sample(part, n, LAYOUT, small_inputs(), n) for n in range(len(records))]
    measured = np.array([[len(sample[region]) for region in REGIONS] for sample in samples])
    packing = pack(measured, config.capacities, config.packing_bins, limit)
    made = list(batches_of_mixture(mixture_of(records, config), config, LAYOUT, small_tokenizer()))
    complete = len(made) - config.packing_bins  # the data end in the last rows
    assert complete > 4
    assert packing.samples[:complete].tolist() == [len(packed.sample_ids[0]) for packed in made[:complete]]
    for region in ("text", "latent"):
        share = packing.used[:complete, REGIONS.index(region)] / config.capacities[region]
        np.testing.assert_allclose(1 - share, [packed.stats[f"padding/{region}"] for packed in made[:complete]])


def test_the_fullest_region_limits_a_row():
    packing = pack(lengths((5, 1), (5, 1)), CAPACITIES, bins=2)
    assert packing.fullest == "text"
    assert packing.padding == {"text": 0.0, "latent": 0.75}
    assert packing.samples_per_row == 2.0


def test_few_samples_are_repeated_until_rows_are_complete():
    assert pack(lengths((1, 2)), CAPACITIES, bins=4).samples_per_row == 4.0


def test_a_sample_that_fits_no_row_is_refused():
    with pytest.raises(ValueError, match="room for each"):
        pack(lengths((1, 9)), CAPACITIES, bins=1)
