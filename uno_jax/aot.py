"""Estimates whether a run fits on a TPU slice, and its speed:
`python -m uno_jax.aot --config=configs/bagel_7b_uno.py --topology=v5e:4x4`.

Compiles the real train step ahead of time. Needs libtpu (requirements-tpu.txt), but no TPU.
"""

from __future__ import annotations

import json
import os
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

# The TPU compiler needs no device.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several estimates at a time
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax
import rich.console
import rich.table
from absl import flags, logging

from uno_jax.config import ConfigError, dictionary_fields, from_config_dict
from uno_jax.models.quantised import Weights
from uno_jax.parallel.mesh import make_mesh
from uno_jax.planning.chips import GIB, Slice, describe_devices, parse_slice
from uno_jax.planning.estimate import Estimate, make_estimate
from uno_jax.planning.fit import AnyEstimate, largest_count, largest_fit, remedies, sampler_remedies
from uno_jax.planning.report import estimate_json, estimate_table, sampler_json, sampler_table
from uno_jax.planning.sampler import SamplerEstimate, every_step_guided, make_sampler_estimate
from uno_jax.process.compilation_cache import cache_directory
from uno_jax.process.errors import exit_with_message
from uno_jax.process.flags import define_config, parse_flags, section_of
from uno_jax.run.config import RunConfig


def main(arguments: Sequence[str]) -> None:
    """Runs the command. User errors end it with a message and an exit status."""
    options = flags.FlagValues()
    _define(options, arguments)
    parse_flags(options, arguments, command="aot", about=__doc__, required=("config", "topology"))
    # Nothing runs here, so the host's accelerators must not be claimed.
    jax.config.update("jax_platforms", "cpu")
    cache = _report_cache()
    logging.set_verbosity(logging.WARNING)
    with exit_with_message():
        config, target = from_config_dict(options.config, RunConfig), parse_slice(options.topology)
        if not options.sample:
            _estimate_step(options, config, target, cache)
        elif options.task == "text_to_image":
            _estimate_sampler(options, config, target, cache)
        else:
            raise ConfigError(f"--task={options.task} with --sample: the sampler supports only text_to_image")


def _define(options: flags.FlagValues, arguments: Sequence[str]) -> None:
    define_config(options, arguments, dictionary_fields(RunConfig))
    place = section_of(options, "estimate")
    flags.DEFINE_string("topology", None, "slice: v5e:4x4, v5p:2x2x2, 2xv5e:16x16 (two slices)", **place)
    note = "samples that fill the rows (reconstructions with method reca); rows are lengthened for edits if necessary"
    flags.DEFINE_enum("task", "text_to_image", ["text_to_image", "editing"], note, **place)
    note = "find the largest batch and the cheapest rematerialisation that fit"
    flags.DEFINE_boolean("fit", False, note, **place)
    note = "estimate the sampler instead, with this number of images per chip (with --fit, any number above 0)"
    flags.DEFINE_integer("sample", 0, note, lower_bound=0, **place)
    flags.DEFINE_integer("timesteps", 50, "timesteps of the sampler", lower_bound=2, **place)
    note = "weights of the sampler; int8 rounds the large kernels"
    flags.DEFINE_enum("weights", "plain", typing.get_args(Weights), note, **place)
    note = "fraction of the roofline assumed for speeds and hours"
    flags.DEFINE_float("fraction", 0.6, note, lower_bound=0.01, upper_bound=1.0, **place)
    flags.DEFINE_boolean("json", False, "print only one JSON object", **place)


def _report_cache() -> Path | None:
    """Cache directory of TPU compiler reports. Turns off JAX's own cache, which cannot load programs for a TPU here."""
    directory = cache_directory()
    jax.config.update("jax_compilation_cache_dir", None)
    return directory and directory / "estimates"


def _estimate_step(options: flags.FlagValues, config: RunConfig, target: Slice, cache: Path | None) -> None:
    def estimate_of(tried: RunConfig) -> Estimate:
        return make_estimate(tried, target, options.task, cache)

    def name(tried: Estimate) -> str:
        return f"{tried.rows_per_part} rows, remat {tried.config.model.decoder.remat}"

    if options.fit:
        mesh = make_mesh(config.mesh, describe_devices(target))
        estimate = _best(largest_fit(config, mesh, estimate_of), name)
    else:
        estimate = estimate_of(config)
    advice = [] if estimate.memory.fits else remedies(estimate)
    _print(options, estimate_json(estimate, options.fraction), estimate_table(estimate, options.fraction), advice)


def _estimate_sampler(options: flags.FlagValues, config: RunConfig, target: Slice, cache: Path | None) -> None:
    flow = every_step_guided(options.timesteps, config.objective.time_shift)

    def estimate_of(images: int) -> SamplerEstimate:
        return make_sampler_estimate(config, target, images, flow, cache, weights=options.weights)

    def name(tried: SamplerEstimate) -> str:
        return f"{tried.images_per_part} images"

    estimate = _best(largest_count(estimate_of), name) if options.fit else estimate_of(options.sample)
    advice = [] if estimate.memory.fits else sampler_remedies(estimate)
    _print(options, sampler_json(estimate, options.fraction), sampler_table(estimate, options.fraction), advice)


def _best(tried: Iterable[AnyEstimate], name: Callable[[AnyEstimate], str]) -> AnyEstimate:
    """Returns the last estimate that fits, or the last one if none fits. Prints each result to stderr."""
    best, last = None, None
    for last in tried:
        memory = last.memory
        verdict = "fits" if memory.fits else "does not fit"
        print(f"{name(last)}: {memory.peak / GIB:.2f} GiB, {verdict}", file=sys.stderr)
        best = last if memory.fits else best
    assert last is not None
    return best or last


def _print(options: flags.FlagValues, as_json: dict[str, Any], table: rich.table.Table, advice: Sequence[str]) -> None:
    if options.json:
        print(json.dumps(as_json | {"remedies": advice}))
    else:
        console = rich.console.Console(width=140)
        console.print(table)
        console.print("\n".join(advice), highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
