"""The split of records that data sources share."""

from hypothesis import given
from hypothesis import strategies as st

from uno_jax.data.sources.source import split_of


@given(st.text(min_size=1), st.floats(0, 0.9))
def test_the_split_depends_on_the_id_alone(id_, fraction):
    assert split_of(id_, fraction) == split_of(id_, fraction)
    assert split_of(id_, 0.0) == "train"


def test_the_fraction_is_approximately_met():
    held_out = sum(split_of(f"record {number}", 0.25) == "test" for number in range(2000))
    assert 430 < held_out < 570
