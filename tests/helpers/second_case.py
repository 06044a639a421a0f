"""A second reference case, derived from the original's numbers of the first: other times, and guidance that ends early.

The training forward depends on the times t and on nothing else of how they were drawn. So the first case's arrays are
those of a case with time shift 3 whose normal draws give the same t. The first steps of an edit do not depend on what
guidance does later. So an edit that is guided at t > 0.5 alone has the first case's states up to there, and follows the
conditional velocity from there, which the first case stores too.
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
    """Writes to `directory` the case derived from the case `first`; its one run of edits, `global`, lacks a picture."""
    shutil.copytree(first, directory)
    _edit_json(directory / "config.json", lambda config: config.update(timestep_shift=TIME_SHIFT))
    shift = json.loads((first / "config.json").read_text())["timestep_shift"]
    for file, arrays in {"uno.npz": ("in/timesteps_raw",), "packing.npz": ("all/packed_timesteps",)}.items():
        _edit_npz(directory / file, {array: lambda raw: draws_of_same_times(raw, shift) for array in arrays})
    _end_guidance_early(directory)


def draws_of_same_times(raw: np.ndarray, shift: float) -> np.ndarray:
    """The normal draws that give with TIME_SHIFT the times that `raw` gives with `shift`; minus infinity stays.

    t / (1 - t) = shift * u / (1 - u) and u / (1 - u) = exp(raw), so another shift moves the draw by a constant.
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
# The original stores the conditional velocity of one run alone, and the picture was decoded from another latent.
_LEFT_OUT = ("edit/channel/", "edit/text_channel/", "edit/global/image")


def _edit_json(file: Path, edit: Any) -> None:
    fields = json.loads(file.read_text())
    edit(fields)
    file.write_text(json.dumps(fields))


def _edit_npz(file: Path, changes: dict[str, Any]) -> None:
    with np.load(file) as archive:
        arrays = dict(archive)
    np.savez(file, **arrays | {name: change(arrays[name]) for name, change in changes.items()})
