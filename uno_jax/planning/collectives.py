"""Bytes that collectives move, by mesh axis, read off a compiled program."""

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
_ORDER = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"  # of devices: their numbers in that shape, transposed


@dataclass(frozen=True)
class Collective:
    """One collective of the program, and how often it runs."""

    kind: str
    axes: tuple[str, ...]
    """Mesh axes that its groups run along."""
    across_slices: bool
    bytes_received: int
    """By one device, in one run: what a ring algorithm moves."""
    runs: int
    source: str
    """The operation of the model that it serves."""


def find_collectives(
    program: Program, axes: Mapping[str, int], slice_of: Sequence[int] | None = None
) -> list[Collective]:
    """Every collective of the program.

    A collective that the compiler spreads over several fusions counts where it starts. An all-reduce of which each
    device keeps its part only ("all-reduce-scatter") counts as what it is, a reduce-scatter.

    Args:
      program: compiled for a mesh.
      axes: sizes of the mesh axes, in the order of the mesh.
      slice_of: the slice of every device, in that order; None: there is one.

    Returns:
      Collectives inside slices, and what is sent between them.
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
    """What the runtime moves between slices: each device hands its part over and gets the sum back."""
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
    """Bytes that one device receives in one call of the program, by mesh axes: `fsdp`, `data+fsdp`; and with
    ` across slices` after them for what leaves the slice."""
    return {axes: sum(kinds.values()) for axes, kinds in bytes_by_kind(collectives).items()}


def bytes_by_kind(collectives: Sequence[Collective]) -> dict[str, dict[str, int]]:
    """As `bytes_by_axes`, each split by the kind of collective: `{"fsdp": {"all-gather": 1024}}`."""
    total: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for item in collectives:
        name = "+".join(item.axes) + (ACROSS if item.across_slices else "")
        total[name][item.kind] += item.bytes_received * item.runs
    return {axes: dict(kinds) for axes, kinds in total.items()}


def device_groups(attributes: str, devices: int) -> Int[np.ndarray, "groups members"] | None:
    """The groups of a collective, as positions in the mesh, in any of the notations of compiled programs.

    `{{0,1},{2,3}}`; `[2,4]<=[8]`; `[4,2]<=[2,4]T(1,0)`; `mesh['a'=2,'b'=4] {'a'}`; where the mesh's devices are in
    another order, `mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}`; and `source_target_pairs` of a permutation,
    whose groups are its cycles. None: nothing moves.

    Raises:
      ValueError: groups in another notation.
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
    raise ValueError(f"a collective over groups of devices in a notation that is not known: {attributes[:300]}")


def axes_of_groups(groups: Int[np.ndarray, "groups members"], axes: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which members of a group differ."""
    sizes = tuple(axes.values())
    places = np.stack(np.unravel_index(groups, sizes))  # [axis, group, member]
    differ = np.any(places != places[:, :, :1], axis=(1, 2))
    return tuple(axis for axis, different in zip(axes, differ, strict=True) if different)


def _collectives_of(program: Program, name: str) -> Iterator[tuple[Instruction, bool]]:
    """Collectives that run as steps of a computation, those inside its fusions too; and whether only a part of the
    result is kept."""
    for instruction in program.computations[name].values():
        if _is_collective(instruction):
            yield instruction, False
        elif instruction.opcode == "fusion":
            for called in instruction.called:
                if not _goes_on(program, called):
                    for item, deeper in _inside(program, called):
                        yield item, any("scatter" in label for label in (instruction.name, called, deeper))


def _inside(program: Program, name: str) -> Iterator[tuple[Instruction, str]]:
    """Collectives of a fusion's body and of the fusions in it, and the computation that they lie in."""
    for item in program.computations.get(name, {}).values():
        if _is_collective(item):
            yield item, name
        elif item.opcode == "fusion":
            for called in item.called:
                yield from (
                    (inner, called) for inner in program.computations.get(called, {}).values() if _is_collective(inner)
                )


def _goes_on(program: Program, name: str) -> bool:
    """Whether a fusion only goes on with a collective that another has started: computes beside it, or ends it."""
    body = program.computations.get(name, {}).values()
    return name.startswith("async_collective_fusion") or any("AsyncCollectiveDone" in item.attributes for item in body)


def _is_collective(instruction: Instruction) -> bool:
    return instruction.opcode.removesuffix("-start") in KINDS


def _received(instruction: Instruction, kind: str, members: int, scattered: bool) -> int:
    """Bytes that reach one device, in a ring."""
    size = instruction.bytes
    if kind == "collective-permute":
        # A started one has a tuple of operand and result, and two counters.
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
    """All devices in the order `[sizes]T(axes)`."""
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
