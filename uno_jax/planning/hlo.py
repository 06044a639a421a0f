"""Parses the text of compiled programs: computations, instructions, and the number of runs of each computation.

The number of iterations of a loop is the compiler's `known_trip_count`. Without one it follows from the start and step
of the loop counter and the bound in the condition.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

ITEM_BITS = {
    **dict.fromkeys(("f64", "s64", "u64", "c64"), 64),
    **dict.fromkeys(("f32", "s32", "u32"), 32),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 16),
    **dict.fromkeys(("s8", "u8", "pred", "f8e4m3fn", "f8e5m2", "f8e4m3b11fnuz"), 8),
    **dict.fromkeys(("s4", "u4"), 4),
    "c128": 128,
}
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\](\{[^{}]*\})?")
_INSTRUCTION = re.compile(r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.-]+) = (?P<rest>.*)$")
_OPCODE = re.compile(r"\s*([a-z][a-z0-9-]*)\(")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_TRIP_COUNT = re.compile(r'"?known_trip_count"?[:=]\s*\{"?n"?:\s*"?(\d+)')


@dataclass(frozen=True)
class ArrayType:
    """Type of an array that an instruction produces."""

    dtype: str
    shape: tuple[int, ...]
    memory_space: int
    """0: HBM, 1: on-chip memory, 5: host memory."""

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def bytes(self) -> int:
        return self.elements * ITEM_BITS.get(self.dtype, 0) // 8


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    types: tuple[ArrayType, ...]
    """Type of the result, or of the leaves of a tuple, in order."""
    operands: tuple[str, ...]
    attributes: str
    """Text after the operands."""
    is_root: bool

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.types)

    @cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls. An asynchronous computation is called by its `async-start`."""
        if self.opcode in ("async-update", "async-done"):
            return ()
        names = _CALLED.findall(self.attributes)
        for branches in _BRANCHES.findall(self.attributes):
            names += [name.strip().lstrip("%") for name in branches.split(",")]
        return tuple(names)


Computation = Mapping[str, Instruction]
"""Instructions by name, in order."""


@dataclass(frozen=True)
class Program:
    """A compiled module."""

    computations: Mapping[str, Computation]
    entry: str

    @cached_property
    def runs(self) -> Mapping[str, int]:
        """Number of runs of each computation per call of the program. Every branch of a conditional counts."""
        runs: dict[str, int] = defaultdict(int)
        runs[self.entry] = 1
        for name in self._callers_first():
            for instruction in self.computations[name].values():
                around = self.computations[name]
                factor = self.trip_count(instruction, around) if instruction.opcode == "while" else 1
                for called in instruction.called:
                    if called in self.computations:
                        runs[called] += runs[name] * factor
        return runs

    @cached_property
    def fused(self) -> frozenset[str]:
        """Computations whose instructions are not separate steps: bodies of fusions and reductions."""
        return frozenset(
            called
            for computation in self.computations.values()
            for instruction in computation.values()
            if instruction.opcode not in ("while", "conditional", "call", "async-start")
            for called in instruction.called
        )

    def trip_count(self, loop: Instruction, around: Computation) -> int:
        """Number of iterations of a while loop in the computation `around`, or 1 if it is unknown."""
        noted = _TRIP_COUNT.search(loop.attributes)
        if noted:
            return int(noted.group(1))
        condition = self.computations.get(_called_as(loop, "condition"), {})
        root = _root(condition)
        carried = _carried(loop, around)
        bound = max(() if root is None else self._bounds(root, condition, carried), default=1)
        start, step = self._counter(loop, condition, carried)
        return max(-(-(bound - start) // step), 0)

    def _bounds(
        self, item: Instruction, condition: Computation, carried: Sequence[Instruction | None]
    ) -> Iterator[int]:
        """Yields the constants in a loop's condition: in its body, in its fusions, or in the loop state."""
        value = _value(item, condition, carried)
        if value is not None:
            yield value
        else:
            for called in item.called:
                yield from filter(None, map(_constant, self.computations.get(called, {}).values()))
            for name in item.operands:
                if name in condition:
                    yield from self._bounds(condition[name], condition, carried)

    def _counter(
        self, loop: Instruction, condition: Computation, carried: Sequence[Instruction | None]
    ) -> tuple[int, int]:
        """Start and step of a loop's counter.

        They are not always 0 and 1: the compiler unrolls loops and peels first iterations.
        """
        body = self.computations.get(_called_as(loop, "body"), {})
        root = _root(body)
        following = () if root is None else root.operands
        for compared in condition.values():
            place = _place(compared)
            if place is None or place >= len(following) or following[place] not in body:
                continue
            update = _behind_copies(body[following[place]], body)
            if update.opcode == "add":
                parts = [_behind_copies(body[name], body) for name in update.operands if name in body]
                steps = [_value(part, body, carried) for part in parts if _place(part) != place]
                if len(steps) == 1 and steps[0] is not None and steps[0] > 0:
                    return _carried_constant(carried, place) or 0, steps[0]
        return 0, 1

    def _callers_first(self) -> Iterator[str]:
        order: list[str] = []
        seen: set[str] = set()

        def visit(name: str) -> None:
            if name in seen or name not in self.computations:
                return
            seen.add(name)
            for instruction in self.computations[name].values():
                for called in instruction.called:
                    visit(called)
            order.append(name)

        visit(self.entry)
        return reversed(order)


def parse_hlo(text: str) -> Program:
    """Parses the text of a compiled module (`compiled.as_text()`).

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if line.startswith("}"):
            current = None
        elif line.endswith("{") and not line.startswith((" ", "HloModule")):
            words = line.split()
            name = words[1 if words[0] == "ENTRY" else 0].lstrip("%").split("(")[0]
            current = computations.setdefault(name, {})
            entry = name if words[0] == "ENTRY" else entry
        elif current is not None:
            instruction = _parse_instruction(line)
            if instruction is not None:
                current[instruction.name] = instruction
    if not entry:
        raise ValueError("no ENTRY computation: this is not the text of a compiled module")
    return Program(computations, entry)


def array_types(text: str) -> tuple[ArrayType, ...]:
    """Parses the arrays of a type, for example `(f32[2,3]{1,0:T(8,128)S(1)}, s32[])`."""
    found = []
    for dtype, shape, layout in _ARRAY.findall(text):
        if dtype in ITEM_BITS:
            space = re.search(r"S\((\d+)\)", layout or "")
            sizes = tuple(int(size) for size in shape.split(",") if size)
            found.append(ArrayType(dtype, sizes, int(space.group(1)) if space else 0))
    return tuple(found)


def _parse_instruction(line: str) -> Instruction | None:
    match = _INSTRUCTION.match(line)
    if not match:
        return None
    rest = match["rest"]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:]
    opcode = _OPCODE.match(rest)
    if not opcode:
        return None
    stop = _closing(rest, opcode.end() - 1)
    operands = rest[opcode.end() : stop]
    names = tuple(re.findall(r"%([\w.-]+)", operands))
    attributes = rest[stop + 1 :]
    if opcode[1] in ("constant", "parameter"):
        attributes = f"({operands}){attributes}"
    return Instruction(match["name"], opcode[1], array_types(kind), names, attributes, bool(match["root"]))


def _closing(text: str, start: int) -> int:
    """Index of the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    return len(text)


def _called_as(instruction: Instruction, role: str) -> str:
    match = re.search(rf"\b{role}=%?([\w.-]+)", instruction.attributes)
    return match[1] if match else ""


def _root(computation: Computation) -> Instruction | None:
    return next((item for item in computation.values() if item.is_root), None)


def _place(item: Instruction) -> int | None:
    """Index of a `get-tuple-element`, or None for another instruction."""
    match = re.search(r"index=(\d+)", item.attributes) if item.opcode == "get-tuple-element" else None
    return int(match[1]) if match else None


def _carried(loop: Instruction, around: Computation) -> list[Instruction | None]:
    """Initial values of a loop, in the order of its tuple."""
    start = around.get(loop.operands[0])
    if start is None or start.opcode != "tuple":
        return []
    return [_behind_copies(around[name], around) if name in around else None for name in start.operands]


def _behind_copies(item: Instruction, computation: Computation) -> Instruction:
    while item.opcode in ("copy", "bitcast", "convert") and item.operands and item.operands[0] in computation:
        item = computation[item.operands[0]]
    return item


def _value(item: Instruction, computation: Computation, carried: Sequence[Instruction | None]) -> int | None:
    """Value of an instruction in a loop if it is a constant, or a constant carried by the loop."""
    item = _behind_copies(item, computation)
    place = _place(item)
    return _constant(item) if place is None else _carried_constant(carried, place)


def _carried_constant(carried: Sequence[Instruction | None], place: int) -> int | None:
    first = carried[place] if place < len(carried) else None
    return None if first is None else _constant(first)


def _constant(instruction: Instruction) -> int | None:
    match = re.match(r"\((-?\d+)\)", instruction.attributes)
    return int(match[1]) if instruction.opcode == "constant" and match else None
