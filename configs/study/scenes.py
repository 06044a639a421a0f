"""The study on scenes, on two CPU cores: all arms from two bases, tuned, with intervals. See docs/study.md."""

from __future__ import annotations

from itertools import product

from ml_collections import ConfigDict

from uno_jax.config import to_config_dict
from uno_jax.study.config import (
    Arm,
    BasePlan,
    DatasetPlan,
    Evaluation,
    RunPlan,
    SamplingPlan,
    StudyConfig,
    TuningPlan,
)

# Sizes, all here: change these first.
SCENES, OTHER_SCENES = 60_000, 3_000
VISION_STEPS, AUTOENCODER_STEPS, STEPS = 4_000, 2_000, 800
TUNING_PROMPTS, CURVE_PROMPTS, PROMPTS, EDITS, READ = 600, 600, 3_000, 500, 300
SCALES = (1.0, 1.5, 2.0, 3.0)

# The grids have eight points each. Those of supervised arms vary one thing at a time from a middle.
_RATE = "optimizer.learning_rate={}"
_MIDDLE = "1e-3"


def _flow_grid(dropout: str = "text_dropout", shares: tuple[str, ...] = ("0.1", "0.0")) -> tuple[tuple[str, ...], ...]:
    """Grid of an arm with flow matching only: the rate, and how often it sees no condition."""
    rates = ("1e-4", "3e-4", "1e-3", "2e-3")
    return tuple((_RATE.format(rate), f"data.{dropout}={share}") for rate, share in product(rates, shares))


def _supervised_grid(*losses: str) -> tuple[tuple[str, ...], ...]:
    """Grid of an arm with supervision losses: their share of the flow loss's gradient, the rate, the prompt."""

    def point(share: str = "0.1", rate: str = _MIDDLE, supervise: str = "always") -> tuple[str, ...]:
        balance = tuple(f"objective.balance.{loss}={share}" for loss in losses)
        blocks = ("data.latent_tokens=128",) if supervise == "hidden" else ()  # two noised blocks
        return (_RATE.format(rate), *balance, f"data.supervise={supervise}", *blocks)

    return (
        point(),
        point(share="0.0"),  # the fixed weights of the config
        point(share="0.03"),
        point(share="0.3"),
        point(rate="3e-4"),
        point(rate="2e-3"),
        point(supervise="prompt_dropped"),
        point(supervise="hidden"),
    )


def _align_grid() -> tuple[tuple[str, ...], ...]:
    """Grid of the arm that aligns with vision features: its share of the flow loss's gradient, and the rate."""
    rates, shares = ("3e-4", "1e-3"), ("0.0", "0.03", "0.1", "0.3")
    return tuple((_RATE.format(rate), f"objective.balance.align={share}") for rate, share in product(rates, shares))


ARMS = (
    Arm("sft", "scenes_sft", grid=_flow_grid()),
    Arm("sft_recaption", "scenes_sft_recaption", grid=_flow_grid()),
    Arm("reca", "scenes_reca", grid=_flow_grid(dropout="vit_dropout", shares=("0.3", "0.0")), seeds=1),
    Arm("uno_caption", "scenes_uno_caption", grid=_supervised_grid("caption"), seeds=1),
    Arm("uno_visual", "scenes_uno_visual", grid=_supervised_grid("visual"), seeds=1),
    Arm("uno", "scenes_uno", grid=_supervised_grid("caption", "visual")),
    Arm("align", "scenes_align", grid=_align_grid(), seeds=1),
    Arm("uno_anchor", "scenes_uno_anchor", grid=_supervised_grid("caption", "visual"), seeds=1),
)


def dataset(scenes: int, others: int) -> DatasetPlan:
    """Returns a dataset of `scenes` training scenes, and `others` in each other split."""
    return DatasetPlan(("dataset=scenes", f"scenes={scenes}", f"other_scenes={others}", "vocab_size=512"))


def study() -> StudyConfig:
    """Returns the study, which the others change."""
    return StudyConfig(
        data=dataset(SCENES, OTHER_SCENES),
        base=BasePlan(
            stages=(RunPlan("scenes_pretrain"),),
            count=2,
            vision_steps=VISION_STEPS,
            autoencoder_steps=AUTOENCODER_STEPS,
        ),
        arms=ARMS,
        seeds=3,
        steps=STEPS,
        score_every=STEPS // 4,
        curve=(Evaluation("draw", "test", CURVE_PROMPTS),),
        final=(
            Evaluation("draw", "test", PROMPTS, 1.0),
            Evaluation("draw", "test", PROMPTS),
            Evaluation("draw", "novel", PROMPTS),
            Evaluation("edit", "test", EDITS),
            Evaluation("read", "test", READ),
        ),
        reading=Evaluation("read", "test", READ),
        tuning=TuningPlan(records=TUNING_PROMPTS, scales=SCALES),
        sampling=SamplingPlan(timesteps=17, batch=64, ema=True),
    )


def get_config() -> ConfigDict:
    """Returns the study."""
    return to_config_dict(study())
