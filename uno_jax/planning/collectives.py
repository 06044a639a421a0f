"""Bytes moved by the collectives of a compiled program, per mesh axis."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from uno_jax.planning.hlo import Instruction, Program

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
ACROSS = " across slices"
_ORDER = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"  # device order: the range reshaped to the sizes, then transposed


@dataclass(frozen=True)
class Collective:
    """One collective of the program and its number of runs."""

    kind: str
    axes: tuple[str, ...]
    """Mesh axes spanned by its device groups."""
    across_slices: bool
    bytes_received: int
    """Bytes received by one device in one run, with a ring algorithm."""
    runs: int
    source: str
    """`op_name` of the model operation that it belongs to."""


def find_collectives(
    program: Program, axes: Mapping[str, int], slice_of: Sequence[int] | None = None
) -> list[Collective]:
    """Finds every collective of the program.

    A collective that the compiler spreads over several fusions counts once, where it starts. An all-reduce followed by
    a slice ("all-reduce-scatter") counts as a reduce-scatter.

    Args:
      program: a program compiled for a mesh.
      axes: sizes of the mesh axes, in mesh order.
      slice_of: slice index of every device, in mesh order. None means a single slice.

    Returns:
      The collectives within slices, then the transfers between slices.
    """
    slices = np.zeros(math.prod(axes.values()), int) if slice_of is None else np.asarray(slice_of)
    found: list[Collective] = []
    for name, runs in program.runs.items():
        if name in program.fused:
            continue
        for instruction, scattered in _collectives_of(program, name):
            kind = instruction.opcode.removesuffix("-start")
            groups = device_groups(instruction.attributes, math.prod(axes.values()))
            if groups is None or groups.shape[1] < 2:
                continue
            if kind == "all-reduce" and scattered:
                kind = "reduce-scatter"
            collective = Collective(
                kind=kind,
                axes=axes_of_groups(groups, axes),
                across_slices=bool(np.any(slices[groups] != slices[groups][:, :1])),
                bytes_received=_received(instruction, kind, groups.shape[1], scattered),
                runs=runs,
                source=_source(instruction),
            )
            found.append(collective)
    return [*found, *_between_slices(program, axes, slices)]


def _between_slices(program: Program, axes: Mapping[str, int], slices: np.ndarray) -> list[Collective]:
    """Finds the transfers of the multi-slice runtime: each device sends its shard and receives the sum."""
    grid = slices.reshape(tuple(axes.values()))
    across = tuple(
        axis
        for i, axis in enumerate(axes)
        if grid.shape[i] > 1 and np.any(np.take(grid, [0], axis=i) != np.take(grid, [-1], axis=i))
    )
    found = []
    for name, runs in program.runs.items():
        for instruction in program.computations[name].values():
            if instruction.opcode == "send" and "megascale" in instruction.attributes:
                operation = re.search(r'_xla_host_transfer_rendezvous="([a-z-]+)', instruction.attributes)
                kind = operation[1].strip("-") if operation else "send"
                size = instruction.types[0].bytes
                found.append(Collective(kind, across, True, size, runs, _source(instruction)))
    return found


def bytes_by_axes(collectives: Sequence[Collective]) -> dict[str, int]:
    """Returns the bytes that one device receives per call, by mesh axes (`fsdp`, `data+fsdp`).

    Keys of traffic between slices end in ` across slices`.
    """
    return {axes: sum(kinds.values()) for axes, kinds in bytes_by_kind(collectives).items()}


def bytes_by_kind(collectives: Sequence[Collective]) -> dict[str, dict[str, int]]:
    """Returns the bytes that one device receives per call, by mesh axes and kind: `{"fsdp": {"all-gather": 1024}}`."""
    total: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for item in collectives:
        name = "+".join(item.axes) + (ACROSS if item.across_slices else "")
        total[name][item.kind] += item.bytes_received * item.runs
    return {axes: dict(kinds) for axes, kinds in total.items()}


def device_groups(attributes: str, devices: int) -> Int[np.ndarray, "groups members"] | None:
    """Parses the device groups of a collective, as positions in the mesh.

    Every notation of compiled programs is supported: `{{0,1},{2,3}}`; `[2,4]<=[8]`; `[4,2]<=[2,4]T(1,0)`;
    `mesh['a'=2,'b'=4] {'a'}`; with another device order, `mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}`; and
    `source_target_pairs` of a permutation. The groups of a permutation are its pairs of different devices.

    Returns:
      The groups, or None if no data moves.

    Raises:
      ValueError: the notation is unknown.
    """
    match = re.search(rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({_ORDER}\))? \{{([^}}]*)\}}", attributes)
    if match:
        order = np.arange(devices) if match[2] is None else _device_order(match[2], match[3])
        return _named_groups(match[1], order, match[4])
    match = re.search(rf"replica_groups=\[([\d,]+)\]<={_ORDER}", attributes)
    if match:
        return _device_order(match[2], match[3]).reshape(_integers(match[1]))
    match = re.search(r"replica_groups=\{(\{[\d,{}]*\})\}", attributes)
    if match:
        groups = [_integers(group) for group in re.findall(r"\{([\d,]+)\}", match[1])]
        return np.array(groups) if len({len(group) for group in groups}) == 1 else np.array([groups[0]])
    if "replica_groups={}" in attributes:
        return np.arange(devices)[None]
    match = re.search(r"source_target_pairs=\{(.*?)\}\}", attributes)
    if match:
        pairs = [_integers(pair) for pair in re.findall(r"\{([\d,]+)", match[1])]
        moved = [pair for pair in pairs if pair[0] != pair[1]]
        return np.array(moved) if moved else None
    raise ValueError(f"unknown notation of the device groups of a collective: {attributes[:300]}")


def axes_of_groups(groups: Int[np.ndarray, "groups members"], axes: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the mesh axes along which the members of a group differ."""
    sizes = tuple(axes.values())
    places = np.stack(np.unravel_index(groups, sizes))  # [axis, group, member]
    differ = np.any(places != places[:, :, :1], axis=(1, 2))
    return tuple(axis for axis, different in zip(axes, differ, strict=True) if different)


def _collectives_of(program: Program, name: str) -> Iterator[tuple[Instruction, bool]]:
    """Yields the collectives of a computation and of its fusions, and whether the result is scattered."""
    for instruction in program.computations[name].values():
        if _is_collective(instruction):
            yield instruction, False
        elif instruction.opcode == "fusion":
            for called in instruction.called:
                if not _continues(program, called):
                    for item, deeper in _inside(program, called):
                        yield item, any("scatter" in label for label in (instruction.name, called, deeper))


def _inside(program: Program, name: str) -> Iterator[tuple[Instruction, str]]:
    """Yields the collectives of a fusion's body and of nested fusions, with the name of their computation."""
    for item in program.computations.get(name, {}).values():
        if _is_collective(item):
            yield item, name
        elif item.opcode == "fusion":
            for called in item.called:
                yield from (
                    (inner, called) for inner in program.computations.get(called, {}).values() if _is_collective(inner)
                )


def _continues(program: Program, name: str) -> bool:
    """Whether a fusion only overlaps with or ends a collective that another fusion started."""
    body = program.computations.get(name, {}).values()
    return name.startswith("async_collective_fusion") or any("AsyncCollectiveDone" in item.attributes for item in body)


def _is_collective(instruction: Instruction) -> bool:
    return instruction.opcode.removesuffix("-start") in KINDS


def _received(instruction: Instruction, kind: str, members: int, scattered: bool) -> int:
    """Bytes received by one device, with a ring algorithm."""
    size = instruction.bytes
    if kind == "collective-permute":
        # The result of a `-start` is a tuple: operand, result, and two counters.
        return instruction.types[0].bytes
    if instruction.opcode.endswith("-start") and len(instruction.types) > 1 and kind != "all-reduce":
        size = max(item.bytes for item in instruction.types)
    share = (members - 1) / members
    if kind == "all-reduce":
        return int(2 * share * size)
    if kind == "reduce-scatter" and not scattered:
        size *= members if not instruction.opcode.endswith("-start") else 1
    return int(share * size)


def _device_order(sizes: str, axes: str | None) -> Int[np.ndarray, " devices"]:
    """Device numbers in the order `[sizes]T(axes)`."""
    order = np.arange(math.prod(_integers(sizes))).reshape(_integers(sizes))
    return (order.transpose(_integers(axes)) if axes else order).reshape(-1)


def _named_groups(mesh: str, order: Int[np.ndarray, " devices"], names: str) -> Int[np.ndarray, "groups members"]:
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    chosen = re.findall(r"'([^']+)'", names)
    position = {name: i for i, name in enumerate(sizes)}
    others = [i for name, i in position.items() if name not in chosen]
    members = math.prod(sizes[name] for name in chosen)
    grid = order.reshape(tuple(sizes.values()))
    return grid.transpose(others + [position[name] for name in chosen]).reshape(-1, members)


def _source(instruction: Instruction) -> str:
    match = re.search(r'op_name="([^"]*)"', instruction.attributes)
    return match[1] if match else ""


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)
