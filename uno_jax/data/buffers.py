"""How the samples of a dataset fit the buffers of a config: what is left out, what limits a row, what is padding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from uno_jax.batch import REGIONS, Layout
from uno_jax.data.config import DataConfig
from uno_jax.data.layout import sample_lengths
from uno_jax.data.long_captions import OTHER_CAPTION, UNSUPERVISED, lengths_with_room, shortest_caption
from uno_jax.data.mixture import Group, Mixture
from uno_jax.data.packing import Packing, pack
from uno_jax.data.pipeline import TooManySkipped, first_draws, sampled_groups
from uno_jax.data.samples import Skipped, SkippedCount, complete_sample, long_caption, read_record, too_long
from uno_jax.data.sizes import sizes_only
from uno_jax.data.tokenizer import Tokenizer

WARN_ABOVE = 0.01
"""Share of samples left out above which commands warn."""
NEARLY_ALL = 0.99
"""The share of samples whose length is shown besides that of the longest."""


@dataclass(frozen=True)
class Buffers:
    """The buffers of a config, filled with samples."""

    lengths: Int[np.ndarray, "samples regions"]
    """Tokens of each sample that could be read, before condition dropout, in the order of `REGIONS` and of sampling.
    Some may fit no row. The caption is the one that was drawn, also if it gives way to another one."""
    shortest: Int[np.ndarray, " samples"]
    """Tokens of the shortest caption that each of them could have."""
    long: Sequence[Skipped]
    """The samples that fit no row."""
    kept: Sequence[Skipped]
    """The samples that fit a row with another caption, or without supervision (`data.long_captions`)."""
    unread: Sequence[Skipped]
    """The samples whose records cannot be read."""
    packing: Packing | None
    """The rows of the samples that fit; None if none does."""

    @property
    def skipped(self) -> list[Skipped]:
        """All samples that a run would skip."""
        return [*self.unread, *self.long]

    @property
    def samples(self) -> int:
        """Number of samples, skipped ones included."""
        return len(self.lengths) + len(self.unread)

    @property
    def share_left_out(self) -> float:
        """Fraction of the samples that are skipped."""
        return (len(self.long) + len(self.unread)) / max(self.samples, 1)

    @property
    def outcomes(self) -> Counter[str]:
        """Counts the samples in `kept` by what became of them."""
        return Counter(skip.outcome for skip in self.kept)

    def refilled(self, config: DataConfig) -> Buffers:
        """Returns the same samples in the buffers of another config."""
        return fill_buffers(self.lengths, self.unread, config, shortest=self.shortest)

    def needed(self, region: str, share: float = 1.0) -> int:
        """Returns the tokens of a region that this share of the samples needs at most."""
        column = self.lengths[:, REGIONS.index(region)]
        return int(np.quantile(column, share, method="higher")) if len(column) else 0


def fill_buffers(
    lengths: Int[np.ndarray, "samples regions"],
    unread: Sequence[Skipped],
    config: DataConfig,
    id_of: Callable[[int], str] = str,
    shortest: Int[np.ndarray, " samples"] | None = None,
) -> Buffers:
    """Packs the samples that fit into rows of the config.

    Args:
      lengths: tokens of each sample per region, as in `Buffers`.
      unread: the samples whose records cannot be read.
      config: the data config.
      id_of: returns the record id of a sample, given its position in `lengths`.
      shortest: tokens of the shortest caption of each sample; None = the one in `lengths`.
    """
    shortest = lengths[:, REGIONS.index("caption")] if shortest is None else shortest
    room = config.caption_tokens if config.long_captions == "replace" else np.iinfo(np.int64).max
    used, other, unsupervised = lengths_with_room(lengths, shortest, room)
    fits = np.all(used <= [config.capacities[region] for region in REGIONS], axis=1)
    long = [
        too_long(id_of(int(position)), dict(zip(REGIONS, used[position].tolist(), strict=True)), config.capacities)
        for position in np.flatnonzero(~fits)
    ]
    kept = [
        long_caption(
            id_of(int(position)),
            int(lengths[position, REGIONS.index("caption")]),
            config,
            OTHER_CAPTION if other[position] else UNSUPERVISED,
        )
        for position in np.flatnonzero(fits & (other | unsupervised))
    ]
    packing = None
    if fits.any():
        packing = pack(used[fits], config.capacities, config.packing_bins, config.max_samples_per_row)
    return Buffers(lengths, shortest, [skip for skip in long if skip is not None], kept, unread, packing)


def first_buffers(mixture: Mixture, config: DataConfig, layout: Layout, tokenizer: Tokenizer, count: int) -> Buffers:
    """Fills the buffers with the first samples that a run draws, of whose pictures only the sizes are read.

    Args:
      mixture: the records.
      config: the data config.
      layout: sizes of the model.
      tokenizer: turns text into ids.
      count: number of samples. There are never more than records.

    Raises:
      ValueError: the config is invalid. The message names the field.
    """
    groups = sampled_groups(mixture, config, layout)
    inputs = [sizes_only(part.config.inputs(tokenizer)) for part in mixture.parts]
    ids, lengths, shortest, unread = [], [], [], []
    for number, occurrence in first_draws(groups, config, min(count, sum(len(group.numbers) for group in groups))):
        index, within = mixture.locate(number)
        part = mixture.parts[index]
        record = read_record(part, within)
        if isinstance(record, Skipped):
            unread.append(record)
            continue
        sample = complete_sample(record, part.config, inputs[index], occurrence)
        if isinstance(sample, Skipped):
            unread.append(sample)
            continue
        ids.append(sample.id)
        tokens = sample_lengths(sample.plan, layout)
        lengths.append(list(tokens.values()))
        shortest.append(shortest_caption(record, tokenizer) if tokens["caption"] else 0)
    return fill_buffers(
        np.array(lengths, np.int64).reshape(-1, len(REGIONS)),
        unread,
        config,
        ids.__getitem__,
        np.array(shortest, np.int64),
    )


def check_share(buffers: Buffers, config: DataConfig, what: str) -> None:
    """Requires that not too many samples are left out.

    Args:
      buffers: the samples.
      config: the config with `max_skipped_share`.
      what: says which samples these are, in the plural.

    Raises:
      TooManySkipped: the message names the fields to enlarge.
    """
    if buffers.share_left_out > config.max_skipped_share:
        skipped = buffers.skipped
        problem = f"{len(skipped):,} of {what} would be skipped ({buffers.share_left_out:.1%})"
        limit = f"data.max_skipped_share is {config.max_skipped_share:g}"
        raise TooManySkipped(f"{problem}, and {limit}", skipped, SkippedCount(skipped).advice)


def steps_per_epoch(buffers: Buffers, groups: Sequence[Group], config: DataConfig) -> dict[str, float]:
    """Returns the steps in which a run draws as many samples of each group as it has records.

    If there is only one group, its name is `all`. Returns nothing if no sample fits.

    Args:
      buffers: samples in the order of sampling, which stand for all.
      groups: the records, from `sampled_groups`.
      config: the data config.
    """
    if buffers.packing is None:
        return {}
    per_step = config.rows * buffers.packing.samples_per_row / (1 - buffers.share_left_out)
    total = sum(group.weight for group in groups)
    return {
        group.name if len(groups) > 1 else "all": len(group.numbers) * total / (group.weight * per_step)
        for group in groups
    }
