"""Pre-training of a vision encoder on a prepared dataset of scenes, and the model that it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from uno_jax.data.decoding import decode_rgb
from uno_jax.data.records import first_records
from uno_jax.data.scenes.generate import example_of
from uno_jax.data.scenes.patches import PatchLabels, patch_labels
from uno_jax.data.transforms import patchify
from uno_jax.process.errors import UserError
from uno_jax.process.files import new_folder
from uno_jax.run.config import RunConfig
from uno_jax.run.start import model_assets, tokenizer_directory
from uno_jax.training.checkpoints import save_model
from uno_jax.training.initialise import init_autoencoder, init_params
from uno_jax.training.optimizer import OptimizerConfig
from uno_jax.training.vision import Accuracies, Patches, patch_accuracies, train_vision

TESTED = 500
"""Pictures of the evaluation split that the accuracies are measured on."""


@dataclass(frozen=True)
class VisionPlan:
    """How a vision encoder is pre-trained."""

    steps: int = 4000
    batch: int = 64
    """Pictures per step."""
    learning_rate: float = 2e-3
    """Highest learning rate, of Muon and AdamW."""
    scenes: int = 40_000
    """Maximum number of scenes of the dataset."""


def pretrain_vision(config: RunConfig, plan: VisionPlan, out: Path, console: Console) -> Accuracies:
    """Pre-trains the vision encoder of a run's model, and writes the model, otherwise random, to the folder `out`.

    The parameters are initialised from `config.seed`. The folder is like a workdir: a run may start from it.

    Returns:
      The share of patches of held-out pictures that are labelled right, by kind of label.

    Raises:
      UserError: the dataset has no scenes.
    """
    data, vision = config.data, config.model.vision
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        patches, labels = _read(config, data.split, plan.scenes, progress)
        tested, wanted = _read(config, config.evaluation.split, TESTED, progress)
        params = dict(init_params(config.model, config.seed))
        optimizer = OptimizerConfig(
            rule="muon",
            learning_rate=plan.learning_rate,
            final_learning_rate=plan.learning_rate / 20,
            schedule="cosine",
            warmup_steps=min(50, plan.steps),
            beta2=0.99,
        )
        task = progress.add_task("training", total=plan.steps)
        trained, heads = train_vision(
            params["vision"],
            vision,
            optimizer,
            patches,
            labels,
            steps=plan.steps,
            batch=plan.batch,
            seed=config.seed,
            on_step=lambda step: progress.update(task, completed=step),
        )
    params["vision"] = trained
    assets = model_assets(config, tokenizer_directory(config, None))
    with new_folder(out) as partial:
        save_model(partial / "checkpoints" / "0", params, init_autoencoder(config.model, config.seed), assets)
    return patch_accuracies(trained, heads, vision, tested, wanted)


def _read(config: RunConfig, split: str, limit: int, progress: Progress) -> tuple[Patches, PatchLabels]:
    """Reads the patches of the first pictures of a split of scenes, as the vision encoder sees them, and labels them.

    Raises:
      UserError: a record is no scene, or there is none.
    """
    data, size = config.data, config.model.vision.patch_size
    records = first_records(Path(data.directory), split, "text_to_image", limit)
    patches, labels = [], []
    for record in progress.track(records, description=f"reading {split}"):
        try:
            scene = example_of(record.id).scene
        except ValueError as error:
            raise UserError(f"config.data.directory={data.directory}: {error}") from None
        picture = data.vit_transform.resize(decode_rgb(record.image, record.id))
        patches.append(patchify(picture, size))
        labels.append(patch_labels(scene, len(picture) // size))
    return np.stack(patches), PatchLabels(*map(np.stack, zip(*labels, strict=True)))
