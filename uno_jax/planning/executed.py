"""FLOPs executed by a program, counted in its jaxpr: matrix products, convolutions and kernels.

Elementwise operations, reductions and the optimizer are not counted. On a TPU they are bound by memory bandwidth, not
by arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jax.extend import core
from jax.interpreters import partial_eval


@dataclass
class Executed:
    """FLOPs of one call, on all devices."""

    total: float = 0.0
    by_source: dict[str, float] = field(default_factory=dict)
    """FLOPs by primitive. Kernels are listed by name."""

    def add(self, source: str, flops: float) -> None:
        self.total += flops
        self.by_source[source] = self.by_source.get(source, 0.0) + flops


KernelShare = Callable[[str, tuple[int, ...]], float]
"""Share of a kernel's grid points that do work, as a function of the kernel's name and grid."""


def executed_flops(closed: Any, kernel_share: KernelShare = lambda name, grid: 1.0) -> Executed:
    """Counts the FLOPs of a closed jaxpr after dead-code elimination.

    The body of a scan counts once per iteration, that of a `shard_map` once per shard, and that of a kernel once per
    grid point (times `kernel_share`). Of a conditional the most expensive branch counts. Conditionals in a kernel's
    body are alternatives (a block with a mask, a block without), so only the most expensive of them counts. The number
    of iterations of a `while` loop is unknown: its body counts once.
    """
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    executed = Executed()
    _count(jaxpr, 1.0, kernel_share, executed)
    return executed


def _count(jaxpr: Any, times: float, share: KernelShare, executed: Executed) -> None:
    for equation in _live(jaxpr):
        _count_equation(equation, times, share, executed)


def _live(jaxpr: Any) -> list[Any]:
    """Drops kernels whose results are unused.

    XLA removes these, JAX's dead-code elimination does not. They occur where a rematerialisation policy saves the
    result of a kernel.
    """
    read, equations = {id(variable) for variable in jaxpr.outvars}, []
    for equation in reversed(jaxpr.eqns):
        if equation.primitive.name == "pallas_call" and not any(id(output) in read for output in equation.outvars):
            continue
        equations.append(equation)
        read.update(id(variable) for variable in equation.invars)
    return equations


def _count_equation(equation: Any, times: float, share: KernelShare, executed: Executed) -> None:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        executed.add(name, times * _dot(equation))
    elif name == "conv_general_dilated":
        executed.add(name, times * _convolution(equation))
    elif name == "scan":
        _count(params["jaxpr"].jaxpr, times * params["length"], share, executed)
    elif name == "cond":
        _count_most_expensive(params["branches"], times, share, executed)
    elif name == "shard_map":
        mesh, manual = params["mesh"], params.get("manual_axes") or params["mesh"].axis_names
        shards = math.prod(mesh.shape[axis] for axis in manual)
        _count(params["jaxpr"], times * shards, share, executed)
    elif name == "pallas_call":
        kernel, grid = _kernel_name(params), tuple(params["grid_mapping"].grid)
        visited = math.prod(grid) * share(kernel, grid)
        executed.add(kernel, times * visited * _grid_point(params["jaxpr"], share))
    else:
        for inner in inner_jaxprs(params):
            _count(inner, times, share, executed)


def _count_most_expensive(branches: Any, times: float, share: KernelShare, executed: Executed) -> None:
    counts = []
    for branch in branches:
        inside = Executed()
        _count(branch.jaxpr, times, share, inside)
        counts.append(inside)
    for source, flops in max(counts, key=lambda count: count.total).by_source.items():
        executed.add(source, flops)


def _grid_point(kernel: Any, share: KernelShare) -> float:
    always, alternatives = Executed(), [0.0]
    for equation in kernel.eqns:
        inside = Executed()
        _count_equation(equation, 1.0, share, inside)
        if equation.primitive.name == "cond":
            alternatives.append(inside.total)
        else:
            always.add("", inside.total)
    return always.total + max(alternatives)


def _dot(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return float(2 * math.prod(left[axis] for axis in contracted) * math.prod(out))


def _convolution(equation: Any) -> float:
    numbers = equation.params["dimension_numbers"]
    kernel = equation.invars[1].aval.shape
    outputs = kernel[numbers.rhs_spec[0]]
    return float(2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / outputs)


def _kernel_name(params: Any) -> str:
    info = params.get("name_and_src_info")
    return str(getattr(info, "name", None) or params.get("name") or "kernel")


def inner_jaxprs(params: Any) -> list[Any]:
    """Returns the jaxprs in an equation's parameters: calls, remat, custom derivatives."""
    found = []
    for name, value in params.items():
        if name in ("fwd_jaxpr_thunk", "bwd", "jvp_jaxpr_fun", "jvp_jaxpr_thunk", "cond_jaxpr"):
            continue
        for item in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(item, core.ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, core.Jaxpr):
                found.append(item)
    return found
