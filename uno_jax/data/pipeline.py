"""The grain pipeline from records to packed batches: deterministic, resumable, independent of the number of hosts.

The records are split into virtual shards, and each shard is an independent pipeline:

1. Shuffled record numbers, endless or for a number of epochs. Datasets and tasks with weights take turns.
2. One sample per record number. Draw n of shard s is *occurrence* n * virtual_shards + s. All randomness of the sample
   follows from the seed and the occurrence.
3. Samples that fit no row, and those of records that cannot be read, are skipped and counted by cause.
4. grain's first-fit packer fills rows.

A global batch takes the same number of rows from every shard. Each host makes the rows of the shards it owns, shard by
shard. The rows of a batch and the state of a shard therefore do not depend on the number of hosts. The order of the
rows does, if the devices of a host are not neighbours in the mesh.
"""

from __future__ import annotations

import atexit
import gc
import itertools
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import grain
import numpy as np

from uno_jax.batch import REGIONS, Batch, Layout, PixelBatch
from uno_jax.data.check import check_data_config
from uno_jax.data.config import DataConfig
from uno_jax.data.layout import region_dtypes
from uno_jax.data.methods import Inputs
from uno_jax.data.mixture import Group, Mixture, Part, check_files, open_mixture, tokenizer_of
from uno_jax.data.rows import PackedRegion, Row, make_batch, pack_row, padding_share
from uno_jax.data.samples import SampleInfo, Skipped, SkippedCount, read_sample
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.process.errors import UserError

_MAX_INT32 = 2**31
_FEWEST_DRAWS = 100  # the share of skipped samples is of at least so many


class TooManySkipped(UserError):
    """Raised if more samples are skipped than the config allows.

    The message names the fields to enlarge and ends with the problem of the last one.
    """

    def __init__(self, problem: str, skipped: list[Skipped], advice: str = ""):
        super().__init__(f"{problem}. {advice}The last one: {skipped[-1].message}")
        self.skipped = skipped
        """Samples skipped since the last batch or sample."""
        self._arguments = (problem, skipped, advice)

    def __reduce__(self) -> tuple[Any, ...]:
        """It is raised in a data worker and sent to the process that trains."""
        return TooManySkipped, self._arguments


class PackedBatch(NamedTuple):
    """The rows of this host, with ids and statistics for the metrics."""

    batch: PixelBatch | Batch
    sample_ids: list[list[str]]
    """Record ids of each row, in the order of the samples."""
    stats: dict[str, float]
    """`samples`: samples in these rows; `samples/<name>`: those of a dataset of a mixture. `without_caption`: samples
    whose record has no caption other than the prompt. `filtered` and `filtered/<cause>`: samples skipped before these.
    `<outcome>` and `<outcome>/<cause>`: samples in `kept` with that outcome, if there are any. `padding/<region>`:
    fraction of padding tokens."""
    skipped: list[Skipped]
    """Samples skipped before these."""
    kept: list[Skipped]
    """Samples in these rows whose caption was too long."""


class Batches:
    """An iterator of batches, which is closed when the program ends."""

    def __init__(self, iterator: grain.DatasetIterator[PackedBatch]):
        self._iterator = iterator
        atexit.register(_close_at_exit, weakref.ref(self))

    def __iter__(self) -> Iterator[PackedBatch]:
        return self

    def __next__(self) -> PackedBatch:
        packed: PackedBatch = next(self._iterator)
        return packed

    def get_state(self) -> dict[str, Any]:
        """Returns `{shard name: small JSON dict}`: the position after the last batch returned.

        Prefetched batches do not count.
        """
        state: dict[str, Any] = self._iterator.get_state()
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues bit for bit from a state, or from the union of several hosts' states.

        Replays at most `packing_bins` rows per shard.
        """
        self._iterator.set_state(state)

    def awaited(self) -> str:
        """Names the process that makes the next batch, if it is another one."""
        return ""

    def close(self) -> None:
        """Ends the threads."""
        self._iterator.close()


def _close_at_exit(reference: weakref.ref[Batches]) -> None:
    """Closes and frees the iterator while grain's destructors still find the modules that they need."""
    batches = reference()
    if batches is not None:
        batches.close()
        del batches._iterator
        gc.collect()


def make_batches(
    config: DataConfig,
    layout: Layout,
    tokenizer: Tokenizer | None = None,
    *,
    host_index: int = 0,
    host_count: int = 1,
) -> Batches:
    """Opens the prepared datasets and returns `batches_of_mixture`. Without `tokenizer`, reads the config's."""
    tokenizer = tokenizer or Tokenizer.from_directory(tokenizer_of(config))
    mixture = open_mixture(config, config.split)
    check_files(config)
    return batches_of_mixture(mixture, config, layout, tokenizer, host_index=host_index, host_count=host_count)


def batches_of_mixture(
    mixture: Mixture,
    config: DataConfig,
    layout: Layout,
    tokenizer: Tokenizer,
    *,
    host_index: int = 0,
    host_count: int = 1,
) -> Batches:
    """Returns an iterator of batches.

    Args:
      mixture: the records.
      config: the data config.
      layout: sizes of the model.
      tokenizer: turns text into ids.
      host_index: index of this host, from 0.
      host_count: number of hosts. Their rows, concatenated in host order, are the global batch.

    Raises:
      ValueError: the config is invalid. The message names the field.
    """
    groups = sampled_groups(mixture, config, layout, host_count)
    inputs = tuple(part.config.inputs(tokenizer) for part in mixture.parts)
    per_host = config.virtual_shards // host_count
    own = range(host_index * per_host, (host_index + 1) * per_host)
    # With a finite number of epochs, every host reads all shards, because all hosts must know when the last one ends.
    read = range(config.virtual_shards) if config.epochs else own
    threads = -(-config.read_threads // len(read))
    shards = {
        shard: _packed_rows(_record_numbers(groups, config, shard), mixture, config, layout, inputs, shard, threads)
        for shard in read
    }
    batches = _Batches(shards, own, config, layout)
    return Batches(iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=config.prefetch)))


def sampled_groups(mixture: Mixture, config: DataConfig, layout: Layout, host_count: int = 1) -> list[Group]:
    """Returns the groups of records that take turns, after checking the config. In epochs there is one.

    Raises:
      ValueError: the config is invalid, also for these records. The message names the field.
    """
    for part in mixture.parts:
        _check_part(part, layout, host_count)
    return _checked_groups(mixture, config)


def first_draws(groups: Sequence[Group], config: DataConfig, count: int) -> Iterator[tuple[int, int]]:
    """Yields the record number and the occurrence of the first `count` samples of a run, in turns from all shards.

    It yields fewer if the data end before.

    Args:
      groups: the records, from `sampled_groups`.
      config: the data config.
      count: number of samples.
    """
    shards = [_record_numbers(groups, config, shard) for shard in range(config.virtual_shards)]
    for draw, shard in itertools.islice(itertools.product(range(count), range(len(shards))), count):
        if draw < len(shards[shard]):
            yield int(shards[shard][draw]), _occurrence(draw, shard, config.virtual_shards)


def _occurrence(draw: int, shard: int, virtual_shards: int) -> int:
    return (draw * virtual_shards + shard) % _MAX_INT32


def _check_part(part: Part, layout: Layout, host_count: int) -> None:
    try:
        check_data_config(part.config, layout, part.drawn(), host_count)
    except ValueError as error:
        raise ValueError(f"data.mixture.{part.name}: {error}" if part.name else str(error)) from error


def _checked_groups(mixture: Mixture, config: DataConfig) -> list[Group]:
    """Returns the groups that take turns. In epochs there are no weights, so there is one."""
    groups = mixture.groups()
    if config.epochs:
        return [Group(1.0, np.sort(np.concatenate([group.numbers for group in groups])), "all")]
    for group in groups:
        if len(group.numbers) < config.virtual_shards:
            raise ValueError(
                f"data.virtual_shards is {config.virtual_shards}, but split {config.split!r} has only "
                f"{len(group.numbers)} records of {group.name}, so some shards would be empty: lower "
                "data.virtual_shards, or add records"
            )
    return groups


def _packed_rows(
    numbers: grain.MapDataset,
    mixture: Mixture,
    config: DataConfig,
    layout: Layout,
    inputs: tuple[Inputs, ...],
    shard: int,
    threads: int,
) -> grain.IterDataset:
    """Returns the packed rows of one virtual shard, given its record numbers."""
    samples = numbers.map_with_index(_MakeSample(mixture, config.virtual_shards, layout, inputs, shard))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    usable = _SkipUnusable(samples.to_iter_dataset(options), layout, config.max_skipped_share, len(mixture))
    return grain.experimental.FirstFitPackIterDataset(
        usable,
        length_struct=config.capacities,
        num_packing_bins=config.packing_bins,
        shuffle_bins=False,
        meta_features=["info"],
        max_sequences_per_bin=config.max_samples_per_row or None,
    )


def _record_numbers(groups: Sequence[Group], config: DataConfig, shard: int) -> grain.MapDataset:
    """Returns the record numbers of a shard in sampling order."""
    datasets = []
    for i, group in enumerate(groups):
        dataset = grain.MapDataset.source(group.numbers[shard :: config.virtual_shards])
        if config.shuffle:
            seed = np.random.SeedSequence((config.seed, shard, i)).generate_state(1)[0]
            dataset = dataset.shuffle(seed=int(seed))
        datasets.append(dataset.repeat(config.epochs or None))
    if len(datasets) == 1:
        return datasets[0]
    return grain.MapDataset.mix(datasets, [group.weight for group in groups])


@dataclass(frozen=True)
class _MakeSample:
    """Maps a draw number and a record number to the arrays of a sample, or to `Skipped`."""

    mixture: Mixture
    virtual_shards: int
    layout: Layout
    inputs: tuple[Inputs, ...]
    """Tokenizer and transforms of each part."""
    shard: int

    def __call__(self, draw: int, number: int | np.integer) -> dict[str, Any] | Skipped:
        part, within = self.mixture.locate(int(number))
        occurrence = _occurrence(draw, self.shard, self.virtual_shards)
        return read_sample(self.mixture.parts[part], within, self.layout, self.inputs[part], occurrence, part)


class _SkipUnusable(grain.IterDataset):
    """Drops the skipped samples, and reports them with the next sample, so that its batch counts them."""

    def __init__(self, parent: grain.IterDataset, layout: Layout, max_share: float, records: int):
        super().__init__(parent)
        self._arguments = (layout, max_share, records)

    def __iter__(self) -> grain.DatasetIterator:
        return _SkipUnusableIterator(iter(self._parent), *self._arguments)


class _SkipUnusableIterator(grain.DatasetIterator):
    def __init__(self, parent: grain.DatasetIterator, layout: Layout, max_share: float, records: int):
        super().__init__(parent)
        self._layout = layout
        self._max_share = max_share
        self._give_up_after = 2 * records + 100
        self._drawn = 0
        self._count = SkippedCount()

    def __next__(self) -> dict[str, Any]:
        skipped: list[Skipped] = []
        while True:
            try:
                element = next(self._parent)
            except StopIteration:
                if not skipped:
                    raise
                # No sample follows the last skipped ones: a placeholder without tokens reports them.
                empty = {region: np.zeros(0, dtype) for region, dtype in region_dtypes(self._layout).items()}
                return {**empty, "info": SampleInfo(id=None, skipped=tuple(skipped))}
            self._drawn += 1
            if not isinstance(element, Skipped):
                return {**element, "info": replace(element["info"], skipped=tuple(skipped))}
            skipped.append(element)
            self._count.add([element])
            if len(skipped) > self._give_up_after:
                problem = f"no sample can be used: the last {len(skipped)} were skipped"
                raise TooManySkipped(problem, skipped, self._count.advice)
            total = self._count.causes.total()
            if total > self._max_share * max(self._drawn, _FEWEST_DRAWS):
                problem = f"{total} of {self._drawn} samples were skipped"
                limit = f"data.max_skipped_share is {self._max_share:g}"
                raise TooManySkipped(f"{problem}, and {limit}", skipped, self._count.advice)

    # Nothing is buffered between two calls, so the parent's position is the whole state.
    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._parent.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        self._parent.set_state(state)


class _Batches(grain.IterDataset):
    """Batches of the rows of all shards."""

    def __init__(self, shards: Mapping[int, grain.IterDataset], own: range, config: DataConfig, layout: Layout):
        super().__init__(list(shards.values()))
        self._shards = dict(shards)
        self._own = own
        self._config = config
        self._layout = layout

    def __iter__(self) -> grain.DatasetIterator[PackedBatch]:
        return _BatchIterator(
            {k: iter(rows) for k, rows in self._shards.items()}, self._own, self._config, self._layout
        )


class _BatchIterator(grain.DatasetIterator):
    def __init__(self, shards: dict[int, grain.DatasetIterator], own: range, config: DataConfig, layout: Layout):
        super().__init__(list(shards.values()))
        self._shards = shards
        self._own = own
        self._config = config
        self._empty_row = pack_row([], config.capacities, layout)

    def __next__(self) -> PackedBatch:
        per_shard = self._config.rows // self._config.virtual_shards
        rows: list[Row] = []
        infos: list[list[SampleInfo]] = []
        ended = True
        for shard, packed in self._shards.items():
            for _ in range(per_shard):
                element = next(packed, None)
                ended &= element is None
                if shard in self._own:
                    rows.append(self._empty_row if element is None else _row(element))
                    infos.append([] if element is None else element["info"])
        if ended:
            raise StopIteration
        return _packed_batch(rows, infos)

    def get_state(self) -> dict[str, Any]:
        return {self._name(shard): packed.get_state() for shard, packed in self._shards.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        missing = [self._name(shard) for shard in self._shards if self._name(shard) not in state]
        if missing:
            raise ValueError(
                f"the saved data state lacks {', '.join(missing)}. It has {', '.join(sorted(state)) or 'no shards'}. "
                "Keep data.virtual_shards as it was when the state was saved, and merge the states of all hosts"
            )
        for shard, packed in self._shards.items():
            packed.set_state(state[self._name(shard)])

    def _name(self, shard: int) -> str:
        return f"shard_{shard:04d}_of_{self._config.virtual_shards:04d}"


def _row(element: Mapping[str, Any]) -> Row:
    return {region: PackedRegion(element[region], element[f"{region}_segment_ids"]) for region in REGIONS}


def _packed_batch(rows: Sequence[Row], infos: Sequence[Sequence[SampleInfo]]) -> PackedBatch:
    batch = make_batch(rows)
    every = [info for row in infos for info in row]
    skipped = [skip for info in every for skip in info.skipped]
    causes = SkippedCount(skipped).causes
    kept = [info.kept for info in every if info.kept is not None]
    eased = Counter(name for skip in kept for name in (skip.outcome, f"{skip.outcome}/{skip.cause}"))
    parts = Counter(info.part for info in every if info.id is not None and info.part)
    stats = {
        "samples": float(sum(info.id is not None for info in every)),
        **{f"samples/{name}": float(count) for name, count in parts.items()},
        "filtered": float(len(skipped)),
        **{f"filtered/{cause}": float(count) for cause, count in causes.items()},
        **{name: float(count) for name, count in eased.items()},
        "without_caption": float(sum(info.without_caption for info in every)),
        **{f"padding/{region}": share for region, share in padding_share(batch).items()},
    }
    ids = [[info.id for info in row if info.id is not None] for row in infos]
    return PackedBatch(batch, ids, stats, skipped, kept)
