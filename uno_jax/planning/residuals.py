"""Activations that wait for the backward pass, read off a step's jaxpr."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax

from uno_jax.parallel.axes import TABLE
from uno_jax.planning.executed import inner_jaxprs


def saved_activation_bytes(closed: Any, mesh_axes: Mapping[str, int]) -> int:
    """Bytes in one device's memory of what loops stack up, one slice an iteration, for others to read.

    The layers' forward loop stacks what the rematerialisation policy keeps, and the backward loop reads it; gradients
    of stacked parameters are read by no loop. Of microbatches, one at a time waits; what waits in the
    host's memory is not counted. An estimate: it does not know what lies outside loops, nor layouts, and takes
    everything for cut by rows and tokens alone, as layer inputs are.

    Args:
      closed: a step's jaxpr, with the shapes of all devices together.
      mesh_axes: sizes of the mesh axes.
    """
    return _stacked(closed.jaxpr) // math.prod(mesh_axes[axis] for name in ("batch", "tokens") for axis in TABLE[name])


def _stacked(jaxpr: Any) -> int:
    loops = [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]
    total = 0
    for i, loop in enumerate(loops):
        read_back = {id(variable) for later in loops[i + 1 :] for variable in later.invars}
        for made, slice_of_it in zip(loop.outvars, loop.params["jaxpr"].jaxpr.outvars, strict=True):
            stacked = made.aval.shape != slice_of_it.aval.shape  # what a loop carries has one shape
            if stacked and id(made) in read_back and made.aval.memory_space != jax.memory.Space.Host:
                total += math.prod(made.aval.shape) * made.aval.dtype.itemsize
    return total + sum(_stacked(inner) for equation in jaxpr.eqns for inner in inner_jaxprs(equation.params))
