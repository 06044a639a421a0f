"""Tokenizer against the original: ids, decoded strings, special ids."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from tests.reference.harness import Check, Reference, exact
from uno_jax.data.tokenizer import Tokenizer

UNUSED: dict[str, str] = {}


def checks(reference: Reference) -> Iterator[Check]:
    tokenizer = Tokenizer.from_directory(reference.directory)
    cases = reference.json("tokenizer_cases.json")
    ids = [_ids_like_the_original(tokenizer, text) for text in cases["strings"]]
    for text, actual, expected in zip(cases["strings"], ids, cases["ids"], strict=True):
        assert actual == expected, f"ids of {text!r}"
    for actual, expected in zip(ids, cases["decoded"], strict=True):
        assert tokenizer.decode(actual) == expected, f"text of {actual}"
    assert len(tokenizer) == cases["length"]

    yield Check("tokenizer.npz", "ids_flat", np.concatenate(ids).astype(np.int32), exact)
    yield Check("tokenizer.npz", "offsets", np.cumsum([0] + [len(i) for i in ids]), exact)
    special = [tokenizer.start, tokenizer.end, tokenizer.image_start, tokenizer.image_end]
    yield Check("tokenizer.npz", "special_ids", np.array(special), exact)


def _ids_like_the_original(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encodes a text in which added tokens are recognised, as the original does and we do not."""
    added = {tokenizer.decode([id_]): id_ for id_ in tokenizer.added}
    pieces = re.split(f"({'|'.join(re.escape(token) for token in sorted(added, key=len, reverse=True))})", text)
    return [id_ for piece in pieces for id_ in ([added[piece]] if piece in added else tokenizer.encode(piece))]
