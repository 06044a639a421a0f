"""Activations saved for the backward pass, estimated from a step's jaxpr."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax

from uno_jax.parallel.axes import TABLE
from uno_jax.planning.executed import inner_jaxprs


def saved_activation_bytes(closed: Any, mesh_axes: Mapping[str, int]) -> int:
    """Estimates the bytes of saved activations in one device's memory.

    Counts the stacked outputs of scans that a later scan reads. The forward loop over layers stacks what the
    rematerialisation policy saves, and the backward loop reads it. No loop reads the gradients of stacked parameters.
    With gradient accumulation, the activations of one microbatch count. Activations offloaded to host memory do not.

    The estimate ignores layouts and activations outside loops, and assumes that all activations are sharded by rows and
    tokens only, like layer inputs.

    Args:
      closed: a step's closed jaxpr, with global shapes.
      mesh_axes: sizes of the mesh axes.
    """
    return _stacked(closed.jaxpr) // math.prod(mesh_axes[axis] for name in ("batch", "tokens") for axis in TABLE[name])


def _stacked(jaxpr: Any) -> int:
    loops = [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]
    total = 0
    for i, loop in enumerate(loops):
        read_back = {id(variable) for later in loops[i + 1 :] for variable in later.invars}
        for output, slice_of_it in zip(loop.outvars, loop.params["jaxpr"].jaxpr.outvars, strict=True):
            stacked = output.aval.shape != slice_of_it.aval.shape  # a carried value has the same shape
            if stacked and id(output) in read_back and output.aval.memory_space != jax.memory.Space.Host:
                total += math.prod(output.aval.shape) * output.aval.dtype.itemsize
    return total + sum(_stacked(inner) for equation in jaxpr.eqns for inner in inner_jaxprs(equation.params))
