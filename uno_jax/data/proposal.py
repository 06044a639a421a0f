"""Proposes the lengths of a row's regions for a dataset, so that its samples cost the fewest tokens."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import Any

import numpy as np

from uno_jax.batch import REGIONS, Layout
from uno_jax.data.buffers import NEARLY_ALL, WARN_ABOVE, Buffers
from uno_jax.data.config import DataConfig
from uno_jax.data.largest import needed_tokens
from uno_jax.data.mixture import Mixture
from uno_jax.data.packing import Packing, pack

WORTH = 0.1
"""Share of the tokens of a sample that other lengths must save to be recommended without being asked for."""
_SHARES = (0.25, 0.5, 0.75, 0.9, 1.0)  # of full rows whose other regions must have room
_SAMPLES = 2000  # that are packed for a trial
_STEPS = ((128, 8), (1024, 32), (2**31, 128))  # lengths below the first number are multiples of the second

Lengths = dict[str, int]
"""Tokens of a row per region."""


def needed_by(mixture: Mixture, layout: Layout) -> Lengths:
    """Returns the lengths below which the config of a part is refused (`check_data_config`)."""
    found = [needed_tokens(part.config, layout, task) for part in mixture.parts for task in part.drawn()]
    return {region: max((lengths[region] for lengths in found), default=0) for region in REGIONS}


def propose(buffers: Buffers, config: DataConfig, needed: Lengths) -> DataConfig:
    """Returns the config with lengths of its regions for which a row costs the fewest tokens per sample.

    It stays as it is if that saves less than 1%.

    The latent region stays as it is, or becomes as long as the longest sample needs, because it decides about memory
    and speed. (Without latents, the ViT region decides, and without both, the text.) At most 1% of the samples are left
    out because they are too long, so a few extreme texts do not set the length of a region.

    Args:
      buffers: samples of the dataset.
      config: the data config. Only the lengths of regions are changed.
      needed: the minimum of each length, from `needed_by`.
    """
    if not len(buffers.lengths):
        return config
    least = _least(buffers, needed)
    fitting = buffers.lengths[np.all(buffers.lengths <= [least[region] for region in REGIONS], axis=1)][:_SAMPLES]
    if not len(fitting):
        return config
    totals = dict(zip(REGIONS, fitting.sum(axis=0), strict=True))
    deciding = next((region for region in ("latent", "vit") if totals[region]), "text")
    fixed = max(least[deciding], config.capacities[deciding])
    others = [region for region in REGIONS if region != deciding]

    def rows_of(lengths: Lengths) -> Packing:
        return pack(fitting, lengths, config.packing_bins, config.max_samples_per_row)

    @cache
    def cost(*lengths: int) -> float:
        """Tokens of a row for each of its samples."""
        return sum(lengths) / rows_of(dict(zip(REGIONS, lengths, strict=True))).samples_per_row

    # What the other regions of a row hold when the deciding one is full.
    used = rows_of({region: fixed if region == deciding else 2**31 for region in REGIONS}).used
    usual = {share: np.quantile(used, share, axis=0, method="higher").tolist() for share in _SHARES}
    tried: dict[str, list[int]] = {deciding: [fixed]}
    for region in others:
        lengths = (usual[share][REGIONS.index(region)] for share in _SHARES)
        rounded = [_rounded(max(least[region], tokens)) for tokens in lengths]
        tried[region] = [max(least[region], config.capacities[region]), *rounded]
    starts = [{region: tried[region][i % len(tried[region])] for region in REGIONS} for i in range(len(_SHARES) + 1)]
    best = min(starts, key=lambda lengths: cost(*lengths.values()))
    for region in others:  # one after the other
        options = ({**best, region: tokens} for tokens in tried[region])
        best = min((best, *options), key=lambda lengths: cost(*lengths.values()))
    if config.capacities == starts[0] and cost(*starts[0].values()) <= 1.01 * cost(*best.values()):
        return config
    changes: dict[str, Any] = {f"{region}_tokens": tokens for region, tokens in best.items()}
    return dataclasses.replace(config, **changes)


def tokens_per_sample(buffers: Buffers, config: DataConfig) -> float:
    """Returns the tokens of a row, padding included, for each of its samples; infinity if no sample fits."""
    packing = buffers.packing
    return math.inf if packing is None else sum(config.capacities.values()) / packing.samples_per_row


def _least(buffers: Buffers, needed: Lengths) -> Lengths:
    """Returns the lengths below which the config is refused or more than 1% of the samples are too long."""
    tails = sum(buffers.needed(region) > buffers.needed(region, NEARLY_ALL) for region in REGIONS)
    share = 1 - WARN_ABOVE / max(tails, 1)
    return {region: max(buffers.needed(region, share), needed[region]) for region in REGIONS}


def _rounded(tokens: int) -> int:
    """Rounds up to a round number."""
    multiple = next(multiple for end, multiple in _STEPS if tokens < end)
    return -(-tokens // multiple) * multiple
