"""Records with the precomputed vision features of their pictures, from the folder of `prepare_data encode --features`.

An entry has the form of `encoded.py`, with rows and columns of patches. Its pictures are those of `feature_uses`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from uno_jax.data.annex import open_annex
from uno_jax.data.config import DataConfig
from uno_jax.data.encoded import from_entry
from uno_jax.data.largest import largest_samples
from uno_jax.data.plans import NoisedTarget, PatchUse, VitImage
from uno_jax.data.record import Record, with_encoded
from uno_jax.data.records import RecordSource

KIND = "features"


def feature_needs(config: DataConfig) -> dict[str, bool]:
    """Returns which features of generated pictures the method takes: those of metaqueries, those of context images.

    Sources of edits and pictures of questions are context images under every method.
    """
    items = [item for sample in largest_samples(config, "text_to_image") for item in sample.plan]
    return {
        "metaqueries": any(isinstance(item, NoisedTarget) and item.query_pixels is not None for item in items),
        "targets": any(isinstance(item, VitImage) for item in items),
    }


def feature_uses(record: Record, needs: Mapping[str, Any]) -> list[tuple[PatchUse, int]]:
    """Returns the pictures of a record that have features, by use and number: 0 the target, from 1 the sources.

    Args:
      record: the record.
      needs: from `feature_needs`; other entries have no effect.
    """
    if record.task == "understanding":
        return [("vit", 0)]
    uses: list[tuple[PatchUse, int]] = [("metaqueries", 0)] if needs["metaqueries"] else []
    return [*uses, *(("vit", number) for number in range(0 if needs["targets"] else 1, 1 + len(record.sources)))]


def with_features(records: RecordSource, config: DataConfig, split: str, fingerprint: str) -> RecordSource:
    """Adds the vision features in `config.features`, if any, to the records of a split.

    Args:
      records: the records.
      config: the data config of the dataset.
      split: the split.
      fingerprint: `split_fingerprint` of the split.

    Raises:
      AnnexError: they are not there, not complete, or of other records.
    """
    if not config.features:
        return records
    annex = open_annex(config.features, KIND)
    return annex.added_to(records, partial(_add_features, annex.about), config.directory, split, fingerprint)


def _add_features(about: Mapping[str, Any], entry: bytes, record: Record) -> Record:
    """Adds the features of the pictures of a record."""
    pictures = from_entry(entry, about["features_per_patch"], about["compute_dtype"])
    return with_encoded(record, features=dict(zip(feature_uses(record, about), pictures, strict=True)))
