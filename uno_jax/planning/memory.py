"""Memory use per chip: the state from its shapes and shardings, everything else from the compiler."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from uno_jax.training.state import TrainState

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Memory:
    """Memory of a program on one chip, in bytes. If it does not fit, only `peak` and `autoencoder` are set."""

    peak: int
    """Peak memory reported by the compiler. If the program does not fit, the memory that it would need."""
    arguments: int
    """State and batch."""
    temporaries: int
    """Temporaries at the peak."""
    program: int
    """The program's code."""
    host: int
    """Host memory used for this chip."""
    fits: bool
    message: str = ""
    """Error message of the compiler if the program does not fit."""
    autoencoder: int = 0
    """Parameters of the autoencoder. They are replicated on every chip, are not arguments of the program, and count
    towards the peak."""


def tree_bytes(tree: Any, *, host: bool = False) -> int:
    """Returns the bytes of a tree on one chip, or with `host` its bytes in host memory for one chip.

    Leaves are `jax.ShapeDtypeStruct` with shardings.
    """
    total = 0
    for leaf in jax.tree.leaves(tree):
        sharding = leaf.sharding
        if (getattr(sharding, "memory_kind", None) in ("pinned_host", "unpinned_host")) == host:
            shape = sharding.shard_shape(leaf.shape) if sharding is not None else leaf.shape
            total += math.prod(shape) * leaf.dtype.itemsize
    return total


def split_state(state: TrainState) -> dict[str, int]:
    """Returns the bytes of each part of the state on one chip, and of the gradients of a step."""
    return {
        "trainable parameters": tree_bytes(state.trainable),
        "frozen parameters": tree_bytes(state.frozen),
        "optimizer": tree_bytes(state.opt_state),
        "EMA": tree_bytes(state.ema),
        "starting model": tree_bytes(state.anchor),
        "gradients": tree_bytes(state.trainable) + tree_bytes(state.trainable, host=True),
    }


def compiled_memory(stats: Mapping[str, int], capacity: float, autoencoder: int) -> Memory:
    """Returns the memory of a compiled program together with the autoencoder.

    Args:
      stats: fields of JAX's `memory_analysis()`, in bytes.
      capacity: memory of a chip, in bytes.
      autoencoder: parameters of the autoencoder, in bytes.
    """
    program = stats["generated_code_size_in_bytes"]
    # The compiler's peak includes host memory. Host arguments are always live, but the amount of host temporaries at
    # the peak is unknown: with host temporaries the result is an upper bound. `temp_size_in_bytes` is HBM only, but
    # counts donated arguments twice where temporaries reuse their memory.
    in_use = stats["peak_memory_in_bytes"] - stats["host_argument_size_in_bytes"]
    if stats["host_temp_size_in_bytes"]:
        in_use = min(in_use, stats["argument_size_in_bytes"] + stats["temp_size_in_bytes"])
    peak = in_use + program + autoencoder
    return Memory(
        peak=peak,
        arguments=stats["argument_size_in_bytes"],
        temporaries=in_use - stats["argument_size_in_bytes"],
        program=program,
        host=stats["host_argument_size_in_bytes"] + stats["host_temp_size_in_bytes"],
        fits=peak <= capacity,
        autoencoder=autoencoder,
    )


def exhausted_memory(refusal: str, autoencoder: int) -> Memory:
    """Returns the memory of a program that does not fit into HBM, together with the autoencoder.

    Args:
      refusal: the compiler's error message, for which `is_exhausted` is true.
      autoencoder: parameters of the autoencoder, in bytes.
    """
    used = _asked_for(refusal)
    assert used is not None, refusal
    return Memory(
        peak=_bytes(used) + autoencoder,
        arguments=0,
        temporaries=0,
        program=0,
        host=0,
        fits=False,
        message=refusal,
        autoencoder=autoencoder,
    )


def is_exhausted(refusal: str) -> bool:
    """Whether a compiler error says that the program does not fit into HBM."""
    return "RESOURCE_EXHAUSTED" in refusal and _asked_for(refusal) is not None


def _asked_for(refusal: str) -> re.Match[str] | None:
    in_all = re.search(r"Used ([\d.]+)([KMGT]?) of \S+ hbm", refusal)
    return in_all or re.search(r"required for [\w ]*\(([\d.]+)([KMGT]?)\)", refusal)


def _bytes(match: re.Match[str]) -> int:
    return int(float(match[1]) * _UNITS[match[2]])
