"""Pre-trains the vision encoder and the autoencoder of a small model on scenes. The rest of the model stays random.

    python -m uno_jax.pretrain_vision --config=configs/scenes_pretrain.py --out=runs/scenes_vision

Pre-training starts from that folder: `config.init_from`. See docs/study.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from rich.console import Console

from uno_jax.config import dictionary_fields, from_config_dict
from uno_jax.process.errors import exit_with_message
from uno_jax.process.files import check_folder
from uno_jax.process.flags import define_config, define_path, parse_flags, section_of
from uno_jax.process.start_up import set_up_jax
from uno_jax.run.config import RunConfig, check_config, with_local_paths
from uno_jax.run.vision import VisionPlan, pretrain_vision
from uno_jax.training.checkpoint_folders import find_checkpoint


def main(arguments: Sequence[str], console: Console | None = None) -> None:
    """Runs the command, and reports an error in one message."""
    options = flags.FlagValues()
    define_config(options, arguments, dictionary_fields(RunConfig))
    define_path(options, "out", None, "folder of the model; if it has one, nothing is done", "output")
    place, plan = section_of(options, "training"), VisionPlan()
    flags.DEFINE_integer("steps", plan.steps, "number of steps of the vision encoder", lower_bound=1, **place)
    note = "number of steps of the autoencoder, if it has parameters"
    flags.DEFINE_integer("autoencoder_steps", plan.autoencoder_steps, note, lower_bound=1, **place)
    flags.DEFINE_integer("batch", plan.batch, "pictures per step", lower_bound=1, **place)
    note = "highest learning rate, of Muon and AdamW"
    flags.DEFINE_float("learning_rate", plan.learning_rate, note, lower_bound=0.0, **place)
    note = "maximum number of scenes of the dataset"
    flags.DEFINE_integer("scenes", plan.scenes, note, lower_bound=1, **place)
    parse_flags(options, arguments, command="pretrain_vision", about=__doc__, required=("config", "out"))
    console = console or Console(soft_wrap=True)
    set_up_jax()
    with exit_with_message():
        out = Path(options.out)
        check_folder(out)
        if find_checkpoint(out) is not None:
            console.print(f"{out} has a model already", markup=False, highlight=False)
            return
        config = with_local_paths(from_config_dict(options.config, RunConfig))
        check_config(config)
        plan = VisionPlan(
            options.steps, options.autoencoder_steps, options.batch, options.learning_rate, options.scenes
        )
        right = pretrain_vision(config, plan, out, console)
        redrawn = right.pop("redrawn", None)
        shares = ", ".join(f"{kind} {share:.1%}" for kind, share in right.items())
        console.print(f"{out}: patches of held-out pictures labelled right: {shares}", markup=False, highlight=False)
        if redrawn is not None:
            console.print(f"held-out pictures right after encoding and decoding: {redrawn:.1%}", highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
