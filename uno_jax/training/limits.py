"""Limits of bad steps: batches skipped in a row, spikes of the loss, and the file that describes a bad step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from uno_jax.objectives.losses import LOSSES
from uno_jax.process.files import atomic_file

_SHOWN = ("loss", *(loss.name for loss in LOSSES), "gradient_norm")


@dataclass(frozen=True)
class LimitsConfig:
    """What a run does about steps that go wrong, in addition to `optimizer.nonfinite`."""

    max_consecutive_skips: int = 20
    """Number of batches skipped in a row that ends the run; 0 = no limit."""
    spike: Literal["off", "skip", "rewind"] = "off"
    """Reaction to a loss above `spike_factor` times the median of the last `spike_window` updates: `skip` skips the
    batch; `rewind` goes back to the newest whole checkpoint and on with the data after the batch."""
    spike_factor: float = 3.0
    spike_window: int = 100
    """There are no spikes before more than half as many updates."""
    max_rewinds: int = 3
    """Number of rewinds of one process. The next spike ends the run."""


class Rewind(Exception):
    """Raised if the run is to go on from its newest whole checkpoint with other data."""

    def __init__(self, message: str, data_state: dict[str, Any]):
        super().__init__(message)
        self.data_state = data_state
        """The position of this host's data after the batch that is the reason."""


def spike_metrics(
    loss: Float[Array, ""], recent: Float[Array, " window"] | None, config: LimitsConfig
) -> dict[str, Array]:
    """Returns whether the loss is a `spike`, and the `spike_median` that it is compared with.

    Returns nothing if the run does not look for spikes. Unknown losses in `recent` are infinite.
    """
    if config.spike == "off" or recent is None:
        return {}
    median = jnp.median(recent)
    return {"spike": jnp.isfinite(loss) & (loss > config.spike_factor * median), "spike_median": median}


def with_loss(
    recent: Float[Array, " window"] | None, loss: Float[Array, ""], applied: Bool[Array, ""]
) -> Float[Array, " window"] | None:
    """Returns the recent losses with that of a step, if it was applied."""
    if recent is None:
        return None
    return jnp.where(applied, jnp.append(recent[1:], loss), recent)


class SkipLimit:
    """Warns of every skipped batch, and counts those in a row."""

    def __init__(self, most: int, say: Callable[[str], None] = print):
        """`most` is the number that ends the run, 0 = no limit. `say` shows a line to the user."""
        self._most, self._say = most, say
        self.in_a_row = 0
        """Number of last steps that were skipped."""

    def reached(self, step: int, metrics: Mapping[str, Any]) -> bool:
        """Whether the limit is reached with a step that did not stop the run, given its metrics."""
        if not is_bad(metrics):
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        self._say(f"warning: the batch of step {step} was skipped: {reason(metrics)}.")
        return 0 < self._most <= self.in_a_row


def is_bad(metrics: Mapping[str, Any]) -> bool:
    """Whether a step was not applied because of its loss or gradient."""
    return not metrics["finite"] or bool(metrics.get("spike"))


def reason(metrics: Mapping[str, Any]) -> str:
    """Says what is bad about a step, with its losses."""
    losses = ", ".join(f"{name} {metrics[name]:g}" for name in _SHOWN if name in metrics)
    if metrics["finite"]:
        return f"the loss is a spike above a median of {metrics['spike_median']:g} ({losses})"
    return f"the loss or gradient is not finite ({losses})"


def write_description(
    workdir: Path | None, step: int, metrics: Mapping[str, Any], samples: Sequence[Sequence[str]]
) -> str:
    """Writes `bad_step_<step>.json` into the workdir: losses, which of them are not finite, ids of each row's samples.

    Returns a space and a sentence that names the file, or says why it could not be written. Host 0 writes.
    """
    if workdir is None:
        return ""
    file = workdir / f"bad_step_{step:06d}.json"
    values = {name: metrics[name] for name in (*_SHOWN, "spike_median") if name in metrics}
    facts = {
        "step": step,
        "losses": {name: value if math.isfinite(value) else str(value) for name, value in values.items()},
        "not_finite": [name for name in _SHOWN if name in metrics and not math.isfinite(metrics[name])],
        "samples": [list(ids) for ids in samples],
    }
    try:
        if jax.process_index() == 0:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(file) as temporary:
                temporary.write_text(json.dumps(facts, indent=1) + "\n")
    except OSError as error:
        return f" {file} could not be written ({error.strerror or error})."
    return f" Losses and samples are in {file}."
