"""Proposes the lengths of a row's regions for a dataset, so that rows are full and samples cost the fewest tokens."""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Int

from uno_jax.batch import REGIONS, Layout
from uno_jax.data.buffers import NEARLY_ALL, WARN_ABOVE, Buffers
from uno_jax.data.config import DataConfig
from uno_jax.data.largest import needed_tokens
from uno_jax.data.mixture import Mixture
from uno_jax.data.packing import Packing, pack

WORTH = 0.1
"""Share of the tokens of a sample that other lengths must save to be recommended without being asked for."""
FULL = 0.95
"""Share of the latent tokens of a row that should be real."""
_FULL_IN_TRIALS = FULL + 0.005  # because a trial has only some of the samples
_BINS = (16, 32)  # values of `packing_bins` that are tried if rows are not full
_LONGER = (2, 4)  # how many times as long as proposed the rows of `longer` may be
_SHARES = (0.25, 0.5, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)  # of full rows whose other regions must have room
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

    At least `FULL` of the latent tokens of a row are real, if any lengths of the other regions make that so. If they do
    with more `packing_bins` only, these are changed, too. The config stays as it is if others are less than 1% cheaper.

    The latent region stays as it is, or becomes as long as the longest sample needs, because it decides about memory
    and speed. (Without latents, the ViT region decides, and without both, the text.) At most 1% of the samples are left
    out because they are too long, so a few extreme texts do not set the length of a region.

    Args:
      buffers: samples of the dataset.
      config: the data config. Only the lengths of regions and `packing_bins` are changed.
      needed: the minimum of each length, from `needed_by`.
    """
    least = _least(buffers, needed)
    fitting = buffers.lengths[np.all(buffers.lengths <= [least[region] for region in REGIONS], axis=1)][:_SAMPLES]
    if not len(fitting):
        return config
    first = _cheapest(fitting, config, least)
    more_bins = (dataclasses.replace(config, packing_bins=bins) for bins in _BINS if bins > config.packing_bins)
    useful = (more for more in more_bins if _fullest(fitting, more, least).padding.get("latent", 0.0) <= 1 - FULL)
    proposals = itertools.chain([first], (_cheapest(fitting, more, least) for more in useful))
    return next((tried for tried in proposals if real_latents(buffers.refilled(tried)) >= FULL), first)


def longer(buffers: Buffers, config: DataConfig, needed: Lengths) -> DataConfig | None:
    """Returns what `propose` makes of the config with twice or four times its latent tokens, if that fills its rows.

    Args:
      buffers: samples of the dataset.
      config: a data config whose rows have less than `FULL` real latent tokens.
      needed: the minimum of each length, from `needed_by`.
    """
    for times in _LONGER:
        tried = propose(buffers, dataclasses.replace(config, latent_tokens=times * config.latent_tokens), needed)
        if real_latents(buffers.refilled(tried)) >= FULL:
            return tried
    return None


def changed_fields(before: DataConfig, after: DataConfig) -> dict[str, int]:
    """Returns the fields that `propose` changed, with their new values."""
    names = [*(f"{region}_tokens" for region in REGIONS), "packing_bins"]
    return {name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)}


def real_latents(buffers: Buffers) -> float:
    """Returns the share of the latent tokens of a row that are real; 0 if no sample fits, 1 if rows have no latents."""
    return 0.0 if buffers.packing is None else 1 - buffers.packing.padding.get("latent", 0.0)


def _cheapest(fitting: Int[np.ndarray, "samples regions"], config: DataConfig, least: Lengths) -> DataConfig:
    """Returns the config with the lengths of regions that are cheapest for samples, or if any do, that fill rows.

    Args:
      fitting: tokens of each sample per region.
      config: the data config.
      least: the minimum of each length.
    """
    deciding, fixed = _deciding(fitting, config, least)
    others = [region for region in REGIONS if region != deciding]

    def rows_of(lengths: Lengths) -> Packing:
        return pack(fitting, lengths, config.packing_bins, config.max_samples_per_row)

    @cache
    def cost(*lengths: int) -> tuple[bool, float]:
        """Whether rows are not full, and tokens of a row for each of its samples."""
        packing = rows_of(dict(zip(REGIONS, lengths, strict=True)))
        return packing.padding[deciding] > 1 - _FULL_IN_TRIALS, sum(lengths) / packing.samples_per_row

    # What the other regions of a row hold when the deciding one is full.
    used = _fullest(fitting, config, least).used
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
    (missing, tokens), now = cost(*best.values()), cost(*starts[0].values())
    if config.capacities == starts[0] and now <= (missing, 1.01 * tokens):
        return config
    changes: dict[str, Any] = {f"{region}_tokens": tokens for region, tokens in best.items()}
    return dataclasses.replace(config, **changes)


def _deciding(fitting: Int[np.ndarray, "samples regions"], config: DataConfig, least: Lengths) -> tuple[str, int]:
    """Returns the region whose length is not chosen freely, and its length."""
    totals = dict(zip(REGIONS, fitting.sum(axis=0), strict=True))
    region = next((region for region in ("latent", "vit") if totals[region]), "text")
    return region, max(least[region], config.capacities[region])


def _fullest(fitting: Int[np.ndarray, "samples regions"], config: DataConfig, least: Lengths) -> Packing:
    """Returns the rows whose other regions always have room."""
    deciding, fixed = _deciding(fitting, config, least)
    lengths = {region: fixed if region == deciding else 2**31 for region in REGIONS}
    return pack(fitting, lengths, config.packing_bins, config.max_samples_per_row)


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
