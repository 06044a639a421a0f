"""Configs are strict, and what is wrong is named by its full path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import ml_collections
import pytest

from uno_jax.config import ConfigError, from_config_dict, to_config_dict, to_json


@dataclass(frozen=True)
class Inner:
    rows: int = 8
    sides: tuple[int, ...] = (1, 2)
    box: tuple[int, float] = (3, 0.5)
    kind: Literal["cosine", "mse"] = "cosine"


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    rate: float = 1e-4
    limit: int | None = None
    on: bool = False
    shares: Mapping[str, float] = field(default_factory=dict)


def test_a_config_dict_becomes_the_dataclass():
    config = ml_collections.ConfigDict({"name": "a", "inner": {"rows": 3, "sides": (4,)}, "limit": 7})
    assert from_config_dict(config, Outer) == Outer("a", Inner(rows=3, sides=(4,)), limit=7)


def test_there_and_back_through_a_config_dict():
    value = Outer("b", Inner(rows=5, kind="mse"), rate=0.5, on=True)
    assert from_config_dict(to_config_dict(value), Outer) == value


def test_there_and_back_through_json():
    value = Outer("b", Inner(sides=(), box=(1, 2.5)), limit=3, shares={"b": 0.5})
    assert from_config_dict(json.loads(json.dumps(to_json(value))), Outer) == value


def test_an_int_is_taken_for_a_float():
    rate = from_config_dict({"name": "a", "rate": 1}, Outer).rate
    assert rate == 1.0
    assert isinstance(rate, float)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"name": "a", "inner": {"rosw": 3}}, r"config\.inner\.rosw is not a field of Inner; did you mean rows\?"),
        (
            {"name": "a", "zzz": 3},
            r"config\.zzz is not a field of Outer; expected one of name, inner, rate, limit, on, shares",
        ),
        ({"name": "a", "inner": {"rows": "x"}}, r"config\.inner\.rows is 'x' \(str\): expected int"),
        ({"name": "a", "inner": {"rows": 1.5}}, r"config\.inner\.rows is 1\.5 \(float\): expected int"),
        ({"name": "a", "inner": {"rows": True}}, r"config\.inner\.rows is True \(bool\): expected int"),
        ({"name": "a", "on": 1}, r"config\.on is 1 \(int\): expected bool"),
        ({"name": "a", "inner": 3}, r"config\.inner is 3 \(int\): expected the fields of Inner"),
        ({"name": "a", "inner": {"kind": "cosin"}}, r"config\.inner\.kind is 'cosin': .* did you mean cosine\?"),
        ({"name": "a", "inner": {"box": (1,)}}, r"config\.inner\.box is \(1,\): expected 2 values"),
        ({"name": "a", "inner": {"sides": (1, "b")}}, r"config\.inner\.sides\[1\] is 'b' \(str\): expected int"),
        (
            {"name": "a", "inner": {"sides": "12"}},
            r"config\.inner\.sides is '12' \(str\): expected tuple\[int, \.\.\.\]",
        ),
        ({}, r"config\.name is missing: expected str"),
    ],
)
def test_a_wrong_field_is_named(given, expected):
    with pytest.raises(ConfigError, match=expected):
        from_config_dict(given, Outer)


def test_all_wrong_fields_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        from_config_dict({"nam": "a", "inner": {"rows": "x"}}, Outer)
    assert [line.split()[0] for line in str(error.value).splitlines()] == [
        "config.nam",
        "config.name",
        "config.inner.rows",
    ]
