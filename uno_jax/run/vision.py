"""Pre-training of the parts of a small model that see, on a prepared dataset of scenes, and the model they leave.

The parts are the vision encoder, and the autoencoder if it has parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from uno_jax.data.decoding import decode_rgb
from uno_jax.data.record import Record
from uno_jax.data.records import first_records
from uno_jax.data.scenes.generate import Example, example_of
from uno_jax.data.scenes.patches import PatchLabels, patch_labels
from uno_jax.data.scenes.score import judge
from uno_jax.data.transforms import ImageTransform
from uno_jax.process.errors import UserError
from uno_jax.process.files import new_folder
from uno_jax.run.config import RunConfig
from uno_jax.run.start import model_assets, tokenizer_directory
from uno_jax.training.autoencoder import redrawn, train_autoencoder
from uno_jax.training.checkpoints import save_model
from uno_jax.training.initialise import init_autoencoder, init_params
from uno_jax.training.optimizer import OptimizerConfig
from uno_jax.training.vision import Accuracies, Pictures, patch_accuracies, train_vision

TESTED = 500
"""Pictures of the evaluation split that the accuracies are measured on."""


@dataclass(frozen=True)
class VisionPlan:
    """How a vision encoder and an autoencoder are pre-trained, one after the other."""

    steps: int = 4000
    """Steps of the vision encoder."""
    autoencoder_steps: int = 4000
    """Steps of the autoencoder, if it has parameters."""
    batch: int = 64
    """Pictures per step."""
    learning_rate: float = 2e-3
    """Highest learning rate, of Muon and AdamW."""
    scenes: int = 40_000
    """Maximum number of scenes of the dataset."""


def pretrain_vision(config: RunConfig, plan: VisionPlan, out: Path, console: Console) -> Accuracies:
    """Pre-trains the parts that see, and writes the model, otherwise random, to the folder `out`.

    The parameters are initialised from `config.seed`. The folder is like a workdir: a run may start from it.

    Returns:
      The share of patches of held-out pictures that are labelled right, by kind of label; and `redrawn`, the share of
      held-out prompts that a picture follows after encoding and decoding.

    Raises:
      UserError: the dataset has no scenes, or the autoencoder is FLUX's, for which pictures of scenes do not suffice.
    """
    data, model = config.data, config.model
    if model.autoencoder.kind == "flux":
        raise UserError("config.model.autoencoder.kind is 'flux', which pictures of scenes cannot train: give another")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        seen = _read(config, data.split, plan.scenes, progress)
        tested = _read(config, config.evaluation.split, TESTED, progress)
        params = dict(init_params(model, config.seed))
        task = progress.add_task("vision encoder", total=plan.steps)
        pictures, labels = seen.as_seen_by(data.vit_transform, model.vision.patch_size)
        params["vision"], heads = train_vision(
            params["vision"],
            model.vision,
            _optimizer(plan.steps, plan.learning_rate),
            pictures,
            labels,
            steps=plan.steps,
            batch=plan.batch,
            seed=config.seed,
            on_step=lambda step: progress.update(task, completed=step),
        )
        wanted = tested.as_seen_by(data.vit_transform, model.vision.patch_size)
        right = patch_accuracies(params["vision"], heads, model.vision, *wanted)
        autoencoder = init_autoencoder(model, config.seed)
        if autoencoder:
            task = progress.add_task("autoencoder", total=plan.autoencoder_steps)
            pictures, labels = seen.as_seen_by(data.vae_transform, model.autoencoder.downsample)
            autoencoder = train_autoencoder(
                autoencoder,
                model.autoencoder,
                _optimizer(plan.autoencoder_steps, plan.learning_rate),
                pictures,
                labels,
                steps=plan.autoencoder_steps,
                batch=plan.batch,
                seed=config.seed,
                on_step=lambda step: progress.update(task, completed=step),
            )
            pictures, _ = tested.as_seen_by(data.vae_transform, model.autoencoder.downsample)
            drawn = redrawn(autoencoder, model.autoencoder, pictures)
            judged = [judge(x.facts, x.total, picture).right for x, picture in zip(tested.examples, drawn, strict=True)]
            right["redrawn"] = sum(judged) / len(judged)
    assets = model_assets(config, tokenizer_directory(config, None))
    with new_folder(out) as partial:
        save_model(partial / "checkpoints" / "0", params, autoencoder, assets)
    return right


def _optimizer(steps: int, rate: float) -> OptimizerConfig:
    return OptimizerConfig(
        rule="muon",
        learning_rate=rate,
        final_learning_rate=rate / 20,
        schedule="cosine",
        warmup_steps=min(50, steps),
        beta2=0.99,
    )


class _Scenes(NamedTuple):
    """Records of scenes, and what they show."""

    records: list[Record]
    examples: list[Example]

    def as_seen_by(self, transform: ImageTransform, patch: int) -> tuple[Pictures, PatchLabels]:
        """Decodes and resizes the pictures, and labels their patches of `patch` pixels."""
        pictures = [transform.resize(decode_rgb(record.image, record.id)) for record in self.records]
        labels = [
            patch_labels(example.scene, len(picture) // patch)
            for example, picture in zip(self.examples, pictures, strict=True)
        ]
        return np.stack(pictures), PatchLabels(*map(np.stack, zip(*labels, strict=True)))


def _read(config: RunConfig, split: str, limit: int, progress: Progress) -> _Scenes:
    """Reads the first pictures of a split of scenes.

    Raises:
      UserError: a record is no scene, or there is none.
    """
    data = config.data
    records = first_records(Path(data.directory), split, "text_to_image", limit)
    examples = []
    for record in progress.track(records, description=f"reading {split}"):
        try:
            examples.append(example_of(record.id))
        except ValueError as error:
            raise UserError(f"config.data.directory={data.directory}: {error}") from None
    return _Scenes(records, examples)
