"""HBM traffic of a compiled program."""

from __future__ import annotations

from uno_jax.planning.hlo import Computation, Instruction, Program

_NO_TRAFFIC = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota", "partition-id", "after-all"),
        *("while", "conditional", "call", "opt-barrier", "add-dependency", "send", "recv"),
        *("async-start", "async-update", "async-done", "copy-done", "slice-done", "custom-call-done"),
        *("send-done", "recv-done", "all-gather-done", "all-reduce-done", "collective-permute-done"),
    )
)
_SLICES = ("dynamic-slice", "slice", "gather")


def hbm_bytes(program: Program) -> int:
    """Counts the bytes read and written by one chip per call, over all runs of all instructions.

    Scalars and arrays in on-chip memory do not count. If a fusion only slices an operand, the slice counts. If it
    updates a result in place, the update counts.
    """
    total = 0
    for name, runs in program.runs.items():
        if name not in program.fused:
            computation = program.computations[name]
            total += runs * sum(_traffic(program, computation, item) for item in computation.values())
    return total


def _traffic(program: Program, computation: Computation, instruction: Instruction) -> int:
    if instruction.opcode in _NO_TRAFFIC:
        return 0
    if instruction.opcode in ("copy-start", "slice-start"):
        moved = instruction.types[0]
        # The other side may be on-chip or host memory.
        return moved.bytes * sum(item.memory_space == 0 for item in instruction.types[:2])
    if instruction.opcode == "dynamic-update-slice":
        return 2 * _hbm(computation.get(instruction.operands[1]))
    if instruction.opcode in _SLICES:
        return 2 * _hbm(instruction)
    body = program.computations.get(instruction.called[0], {}) if instruction.opcode == "fusion" else {}
    updated = _updates(body)
    parameters = {_number(item): item for item in body.values() if item.opcode == "parameter"}
    total = 0
    for i, name in enumerate(instruction.operands):
        operand, parameter = computation.get(name), parameters.get(i)
        if operand is None or operand.opcode in ("tuple", "while"):
            continue
        read = _hbm(operand)
        if parameter is not None and read:
            users = [item for item in body.values() if parameter.name in item.operands]
            if parameter.name in updated:
                read = updated[parameter.name]
            elif users and all(item.opcode in _SLICES for item in users):
                read = min(read, sum(item.bytes for item in users))
        total += read
    return total + _written(instruction, body)


def _written(instruction: Instruction, body: Computation) -> int:
    root = next((item for item in body.values() if item.is_root), None)
    if root is None:
        return _hbm(instruction)
    roots = [body[name] for name in root.operands if name in body] if root.opcode == "tuple" else [root]
    if len(roots) != len(instruction.types):
        return _hbm(instruction)
    written = 0
    for output, kind in zip(roots, instruction.types, strict=True):
        if kind.memory_space == 0:
            output = _behind_bitcasts(output, body)
            update = body.get(output.operands[1]) if output.opcode == "dynamic-update-slice" else None
            written += update.bytes if update is not None else kind.bytes
    return written


def _updates(body: Computation) -> dict[str, int]:
    """Names of the parameters that are updated in place, with the bytes of the update."""
    found = {}
    for item in body.values():
        if item.opcode == "dynamic-update-slice" and item.operands[1] in body:
            target = _behind_bitcasts(body[item.operands[0]], body)
            found[target.name] = body[item.operands[1]].bytes
    return found


def _behind_bitcasts(instruction: Instruction, body: Computation) -> Instruction:
    while instruction.opcode == "bitcast" and instruction.operands[0] in body:
        instruction = body[instruction.operands[0]]
    return instruction


def _hbm(instruction: Instruction | None) -> int:
    if instruction is None:
        return 0
    return sum(item.bytes for item in instruction.types if item.memory_space == 0 and item.shape)


def _number(parameter: Instruction) -> int:
    return int(parameter.attributes[1 : parameter.attributes.index(")")])
