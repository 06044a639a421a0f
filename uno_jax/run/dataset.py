"""The dataset of a run: whether it exists, the tokenizer it is read with, and how it fits the buffers."""

from __future__ import annotations

from uno_jax.config import ConfigError
from uno_jax.data.buffers import WARN_ABOVE, Buffers, first_buffers, steps_per_epoch
from uno_jax.data.check import check_choices
from uno_jax.data.config import DataConfig
from uno_jax.data.mixture import Group, Mixture, open_mixture, part_configs
from uno_jax.data.pipeline import sampled_groups
from uno_jax.data.proposal import WORTH, changed_fields, longer, needed_by, propose, tokens_per_sample
from uno_jax.data.records import has_split
from uno_jax.data.samples import SkippedCount, outcomes
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.interop.source import Source, read_tokenizer
from uno_jax.run.config import RunConfig, run_layout
from uno_jax.run.encoded import check_encoded, check_features
from uno_jax.run.programs import config_errors
from uno_jax.run.start import tokenizer_directory

SAMPLED = 1000
"""Samples that a run measures before it starts, at most."""


def open_data(config: RunConfig) -> Mixture:
    """Opens the records that a run trains on. Requires the held-out split to exist, too, if the run reads it.

    Raises:
      ConfigError: the message names the field. Moments and features of other settings are refused, too.
    """
    parts = config_errors(part_configs, config.data)
    mixture = open_mixture(config.data, config.data.split)
    for part in parts.values():
        config_errors(check_choices, part)
    check_encoded(config)
    check_features(config)
    uses = {"config.evaluation.records": config.evaluation.records, "config.pictures.every": config.pictures.every}
    used = [name for name, value in uses.items() if value]
    for part in parts.values() if used else ():
        if not has_split(part.directory, config.evaluation.split):
            raise ConfigError(
                f"{part.directory} has no split {config.evaluation.split!r} (config.evaluation.split), which "
                f"{' and '.join(used)} need: set them to 0, or prepare the dataset with a larger --test_fraction"
            )
    return mixture


def run_tokenizer(config: RunConfig, source: Source | None) -> Tokenizer:
    """Reads the tokenizer of a run that starts from `source`.

    Raises:
      ConfigError: a file is missing or damaged, or the tokenizer has more ids than the model's vocabulary.
    """
    if source is not None and not config.data.tokenizer:
        return config_errors(source.tokenizer)
    return config_errors(read_tokenizer, tokenizer_directory(config, source), config.model)


def sampled_buffers(config: RunConfig, mixture: Mixture, tokenizer: Tokenizer) -> Buffers:
    """Fills the buffers of a run with its first samples, at most `SAMPLED` and no more than records.

    Raises:
      ConfigError: the config is invalid. The message names the field.
    """
    return config_errors(first_buffers, mixture, config.data, run_layout(config), tokenizer, SAMPLED)


def buffer_facts(config: RunConfig, mixture: Mixture, buffers: Buffers) -> list[tuple[str, str]]:
    """Returns what the start-up table of a run says of its first samples: names and values."""
    data, packing = config.data, buffers.packing
    count = SkippedCount(buffers.skipped)
    causes = ", ".join(f"{cause} {number:,}" for cause, number in count.causes.most_common())
    fit = f"{1 - buffers.share_left_out:.1%} of the first {buffers.samples:,}"
    facts = [("samples that fit", f"{fit}  ({causes} left out)" if causes else fit)]
    if buffers.share_left_out > WARN_ABOVE and count.advice:
        facts.append(("warning", count.advice.strip()))
    if buffers.kept:
        facts.append(("long captions", f"{outcomes(buffers.outcomes)} (data.long_captions)"))
    if packing is None:
        return facts
    padding = ", ".join(f"{region} {share:.0%}" for region, share in packing.padding.items())
    facts.append(("padding", f"{padding}  ({limit_of(config, mixture, buffers)})"))
    steps = steps_per_epoch(buffers, groups_of(config, mixture), data)
    facts.append(("steps per epoch", ", ".join(f"{value:,.0f} {_of(name)}".strip() for name, value in steps.items())))
    return facts


def limit_of(config: RunConfig, mixture: Mixture, buffers: Buffers) -> str:
    """Says what keeps further samples out of a row.

    If that is not the latents, it names lengths of the regions that make samples at least 10% cheaper, if any do.
    """
    packing, data = buffers.packing, config.data
    assert packing is not None, "asked of rows without samples"
    per_row = f"{packing.samples_per_row:.1f} samples per row"
    if 0 < data.max_samples_per_row <= packing.samples_per_row + 0.5:
        return f"{per_row}, as many as data.max_samples_per_row allows"
    said = f"{per_row}, {packing.fullest} is full first"
    if packing.fullest == "latent":
        return said
    proposed = propose_for(config, mixture, buffers)
    refilled = buffers.refilled(proposed)
    if tokens_per_sample(refilled, proposed) > (1 - WORTH) * tokens_per_sample(buffers, data):
        return said
    assert refilled.packing is not None, "more samples fit"
    changed = [f"data.{name}={value}" for name, value in changed_fields(data, proposed).items()]
    return f"{said}; {', '.join(changed)} would give {refilled.packing.samples_per_row:.1f}"


def propose_for(config: RunConfig, mixture: Mixture, buffers: Buffers) -> DataConfig:
    """Returns the data config of a run with lengths of regions that `propose` chooses."""
    return propose(buffers, config.data, needed_by(mixture, run_layout(config)))


def longer_for(config: RunConfig, mixture: Mixture, buffers: Buffers) -> DataConfig | None:
    """Returns the data config of a run with rows that `longer` fills, if there is one."""
    return longer(buffers, config.data, needed_by(mixture, run_layout(config)))


def groups_of(config: RunConfig, mixture: Mixture) -> list[Group]:
    """Returns the records that a run samples.

    Raises:
      ConfigError: the config is invalid, also for these records. The message names the field.
    """
    return config_errors(sampled_groups, mixture, config.data, run_layout(config))


def _of(name: str) -> str:
    return "" if name == "all" else f"of {name}"
