"""Says before the run whether it fits and how fast it can be:
`python -m uno_jax.aot --config=configs/bagel_7b_uno.py --topology=v5e:4x4`.

Compiles the real train step for a TPU slice that is not there. Needs libtpu (requirements-tpu.txt), and no TPU.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence

# The TPU compiler asks no device.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several plans at a time
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax
import rich.console
import rich.table
from absl import app, flags, logging
from ml_collections import config_flags

from uno_jax.config import ConfigError, from_config_dict
from uno_jax.planning.chips import GIB, Slice, parse_slice
from uno_jax.planning.fit import AnyPlan, largest_count, largest_fit, remedies, sampler_remedies
from uno_jax.planning.plan import Plan, make_plan
from uno_jax.planning.report import plan_json, plan_table, sampler_json, sampler_table
from uno_jax.planning.sampler import SamplerPlan, every_step_guided, make_sampler_plan
from uno_jax.process.flags import flags_parser
from uno_jax.run.config import RunConfig

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config file; --config.any.field=value overrides it.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "The slice: v5e:4x4, v5p:2x2x2, 2xv5e:16x16 (two slices).")
_TASK = flags.DEFINE_enum(
    "task",
    "text_to_image",
    ["text_to_image", "editing"],
    "What the rows are taken to be full of (of the method reca, reconstructions); for edits they are made long enough.",
)
_FIT = flags.DEFINE_bool("fit", False, "Find the largest batch and the cheapest rematerialisation that fit.")
_SAMPLE = flags.DEFINE_integer(
    "sample", 0, "Plan the sampler instead, with this many pictures a chip; with --fit, any.", lower_bound=0
)
_TIMESTEPS = flags.DEFINE_integer("timesteps", 50, "Of the sampler.", lower_bound=2)
_FRACTION = flags.DEFINE_float(
    "fraction", 0.6, "Share of the roofline that speeds and hours are stated for.", lower_bound=0.01, upper_bound=1.0
)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object, and nothing else.")


def main(arguments: Sequence[str]) -> None:
    """Plans, and says in one message what is wrong with the config if something is."""
    if len(arguments) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(arguments[1:])}")
    # Whatever this host has: nothing runs, so nothing is to be claimed.
    jax.config.update("jax_platforms", "cpu")
    logging.set_verbosity(logging.WARNING)
    console = rich.console.Console(width=140)
    try:
        config, target = from_config_dict(_CONFIG.value, RunConfig), parse_slice(str(_TOPOLOGY.value))
        if _SAMPLE.value:
            if _TASK.value != "text_to_image":
                raise ConfigError(f"--task={_TASK.value} with --sample: the sampler is planned for text to image only")
            _plan_sampler(console, config, target)
            return
        plan = _fit(config, target) if _FIT.value else make_plan(config, target, _TASK.value)
    except ConfigError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    advice = [] if plan.memory.fits else remedies(plan)
    _print(console, plan_json(plan, _FRACTION.value), plan_table(plan, _FRACTION.value), advice)


def _plan_sampler(console: rich.console.Console, config: RunConfig, target: Slice) -> None:
    flow = every_step_guided(_TIMESTEPS.value, config.objective.time_shift)

    def plan_of(images: int) -> SamplerPlan:
        return make_sampler_plan(config, target, images, flow)

    def name(tried: SamplerPlan) -> str:
        return f"{tried.images_per_part} pictures"

    plan = _best(largest_count(plan_of), name) if _FIT.value else plan_of(_SAMPLE.value)
    advice = [] if plan.memory.fits else sampler_remedies(plan)
    _print(console, sampler_json(plan, _FRACTION.value), sampler_table(plan, _FRACTION.value), advice)


def _fit(config: RunConfig, target: Slice) -> Plan:
    def name(tried: Plan) -> str:
        return f"{tried.rows_per_part} rows, remat {tried.config.model.decoder.remat}"

    return _best(largest_fit(config, target, lambda changed: make_plan(changed, target, _TASK.value)), name)


def _best(tried: Iterable[AnyPlan], name: Callable[[AnyPlan], str]) -> AnyPlan:
    """The best plan, or the last that failed; tells on stderr what was tried."""
    best, last = None, None
    for last in tried:
        memory = last.memory
        verdict = "fits" if memory.fits else "does not fit"
        print(f"{name(last)}: {memory.peak / GIB:.2f} GiB, {verdict}", file=sys.stderr)
        best = last if memory.fits else best
    assert last is not None
    return best or last


def _print(console: rich.console.Console, as_json: dict, table: rich.table.Table, advice: Sequence[str]) -> None:
    if _JSON.value:
        print(json.dumps(as_json | {"remedies": advice}))
    else:
        console.print(table)
        console.print("\n".join(advice), highlight=False)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "topology"])
    app.run(main, flags_parser=flags_parser(__doc__))
