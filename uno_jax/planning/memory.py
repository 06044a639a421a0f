"""What lies in a chip's memory: the state by its shapes and shardings, the rest as the compiler says."""

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
    """Bytes on one chip."""

    peak: int
    """The most that is in use at a time, by the compiler's own account; what it asked for where it gave up."""
    arguments: int
    """State and batch; this and the following are 0 where it does not fit."""
    temporaries: int
    """What the peak holds besides."""
    program: int
    """The program itself."""
    host: int
    """In the host's memory, for this chip."""
    fits: bool
    message: str = ""
    """What the compiler said when it did not fit."""
    autoencoder: int = 0
    """In the peak too: the autoencoder, which lies on every chip and is none of the program's arguments."""


def tree_bytes(tree: Any, *, host: bool = False) -> int:
    """Bytes on one chip (or, `host`, in the host's memory for it) of `jax.ShapeDtypeStruct` with shardings."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        sharding = leaf.sharding
        if (getattr(sharding, "memory_kind", None) in ("pinned_host", "unpinned_host")) == host:
            shape = sharding.shard_shape(leaf.shape) if sharding is not None else leaf.shape
            total += math.prod(shape) * leaf.dtype.itemsize
    return total


def split_state(state: TrainState) -> dict[str, int]:
    """Bytes of each part of the state on one chip, and of the gradients that the step makes."""
    return {
        "trainable parameters": tree_bytes(state.trainable),
        "frozen parameters": tree_bytes(state.frozen),
        "optimizer": tree_bytes(state.opt_state),
        "EMA": tree_bytes(state.ema),
        "gradients": tree_bytes(state.trainable) + tree_bytes(state.trainable, host=True),
    }


def compiled_memory(stats: Mapping[str, int], capacity: float, autoencoder: int) -> Memory:
    """Memory of a program that compiled, with that of the autoencoder beside it; `stats` are the fields of JAX's
    `memory_analysis()`."""
    program = stats["generated_code_size_in_bytes"]
    # The compiler's peak counts what is in the host's memory too. Arguments are there all the time; how much of the
    # temporaries is there at the peak is not told, so that with these it is an upper bound. `temp_size_in_bytes` is of
    # the chip alone, but counts the memory of donated arguments again that temporaries lie in.
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
    """Memory of a program that the compiler refused because it does not fit into HBM, with that of the autoencoder
    beside it; `is_exhausted` says whether that was the reason."""
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
    """Whether what the compiler says is that a program does not fit into HBM."""
    return "RESOURCE_EXHAUSTED" in refusal and _asked_for(refusal) is not None


def _asked_for(refusal: str) -> re.Match[str] | None:
    in_all = re.search(r"Used ([\d.]+)([KMGT]?) of \S+ hbm", refusal)
    return in_all or re.search(r"required for [\w ]*\(([\d.]+)([KMGT]?)\)", refusal)


def _bytes(match: re.Match[str]) -> int:
    return int(float(match[1]) * _UNITS[match[2]])
