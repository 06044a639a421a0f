"""Derives a second reference case from the first one: another time shift, and guidance that ends early.

The training forward pass depends only on the times t, not on how they were sampled. The first case's arrays are
therefore valid for a time shift of 3, with normal draws that give the same t. The first steps of an edit do not depend
on later guidance. An edit with guidance only at t > 0.5 therefore has the first case's states up to that time. From
there it follows the conditional velocity, which the first case also stores.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

TIME_SHIFT = 3.0
INTERVAL = (0.5, 1.0)


def write_second_case(first: Path, directory: Path) -> None:
    """Writes the case derived from `first` to `directory`. Its only edit, `global`, has no picture."""
    shutil.copytree(first, directory)
    _edit_json(directory / "config.json", lambda config: config.update(timestep_shift=TIME_SHIFT))
    shift = json.loads((first / "config.json").read_text())["timestep_shift"]
    for file, arrays in {"uno.npz": ("in/timesteps_raw",), "packing.npz": ("all/packed_timesteps",)}.items():
        _edit_npz(directory / file, {array: lambda raw: draws_of_same_times(raw, shift) for array in arrays})
    _end_guidance_early(directory)


def draws_of_same_times(raw: np.ndarray, shift: float) -> np.ndarray:
    """Returns the normal draws that give the same times with TIME_SHIFT as `raw` gives with `shift`.

    t / (1 - t) = shift * u / (1 - u) and u / (1 - u) = exp(raw), so another shift adds a constant to the draws. Minus
    infinity stays.
    """
    return (raw + np.log(shift / TIME_SHIFT)).astype(np.float32)


def _end_guidance_early(directory: Path) -> None:
    with np.load(directory / "infer.npz") as archive:
        arrays = dict(archive)
    times, states = arrays["edit/global/t"], arrays["edit/global/x_t"].copy()
    guided = times > INTERVAL[0]
    unguided = np.flatnonzero(~guided)
    assert unguided.tolist() == [len(times) - 1], "the derivation needs exactly the last step to be unguided"
    conditional = arrays["edit/global/v_cond"][-1]
    states[-1] = states[-2] - conditional * times[-1]
    velocities = arrays["edit/global/v_t"].copy()
    velocities[-1] = conditional
    arrays |= {
        "edit/global/x_t": states,
        "edit/global/final_latent": states[-1],
        "edit/global/v_t": velocities,
        "edit/global/cfg_used": np.where(guided[:, None], arrays["edit/global/cfg_used"], 1.0).astype(np.float32),
        **{f"edit/global/{name}": arrays[f"edit/global/{name}"] * guided[:, None, None] for name in _GUIDING},
    }
    kept = {name: array for name, array in arrays.items() if not name.startswith(_LEFT_OUT)}
    np.savez(directory / "infer.npz", **kept)

    def edit(fields: dict[str, Any]) -> None:
        fields["edit"]["cfg_interval"] = list(INTERVAL)
        fields["edit"]["runs"] = {"global": fields["edit"]["runs"]["global"]}

    _edit_json(directory / "infer.json", edit)


_GUIDING = ("v_cfg_text", "v_cfg_img")
# The first case stores the conditional velocity of only one edit, and its picture belongs to another latent.
_LEFT_OUT = ("edit/channel/", "edit/text_channel/", "edit/global/image")


def _edit_json(file: Path, edit: Any) -> None:
    fields = json.loads(file.read_text())
    edit(fields)
    file.write_text(json.dumps(fields))


def _edit_npz(file: Path, changes: dict[str, Any]) -> None:
    with np.load(file) as archive:
        arrays = dict(archive)
    np.savez(file, **arrays | {name: change(arrays[name]) for name, change in changes.items()})
