"""The registry of data sources: options with the same name are shared."""

import dataclasses

import pytest

from uno_jax.data.sources.registry import SOURCES, all_options
from uno_jax.data.sources.source import TEST_FRACTION, Option

JSONL = SOURCES["jsonl"]


def renamed(name, *options):
    return dataclasses.replace(JSONL, name=name, options=options)


def test_an_option_that_sources_share_names_them_all():
    one, other = renamed("one", TEST_FRACTION), renamed("other", TEST_FRACTION)
    assert all_options([one, other]) == {"test_fraction": (TEST_FRACTION, ["one", "other"])}


def test_different_options_of_one_name_are_an_error():
    one, other = (renamed(name, Option("rows", int, default, "rows")) for name, default in (("one", 1), ("other", 2)))
    with pytest.raises(ValueError, match="one and other define 'rows' differently"):
        all_options([one, other])
