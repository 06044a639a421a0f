"""Says before the run whether it fits and how fast it can be:
`python -m uno_jax.aot --config=configs/bagel_7b_uno.py --topology=v5e:4x4`.

Compiles the real train step for a TPU slice that is not there. Needs libtpu (requirements-tpu.txt), and no TPU.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

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

from uno_jax.command_line import flags_parser
from uno_jax.config import ConfigError, from_config_dict
from uno_jax.planning.chips import GIB, Slice, parse_slice
from uno_jax.planning.fit import largest_fit, remedies
from uno_jax.planning.plan import Plan, make_plan
from uno_jax.planning.report import plan_json, plan_table
from uno_jax.planning.sampler import every_step_guided, make_sampler_plan, sampler_json, sampler_table
from uno_jax.run_config import RunConfig

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config file; --config.any.field=value overrides it.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "The slice: v5e:4x4, v5p:2x2x2, 2xv5e:16x16 (two slices).")
_TASK = flags.DEFINE_enum(
    "task",
    "text_to_image",
    ["text_to_image", "editing"],
    "What the rows are taken to be full of; for edits they are made long enough.",
)
_FIT = flags.DEFINE_bool("fit", False, "Find the largest batch and the cheapest rematerialisation that fit.")
_SAMPLE = flags.DEFINE_integer("sample", 0, "Plan the sampler instead, with this many pictures a chip.")
_TIMESTEPS = flags.DEFINE_integer("timesteps", 50, "Of the sampler.")
_FRACTION = flags.DEFINE_float("fraction", 0.6, "Share of the roofline that speeds and hours are stated for.")
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
            flow = every_step_guided(_TIMESTEPS.value, config.objective.time_shift)
            sampler = make_sampler_plan(config, target, _SAMPLE.value, flow)
            _print(console, sampler_json(sampler, _FRACTION.value), sampler_table(sampler, _FRACTION.value))
            return
        plan = _fit(config, target) if _FIT.value else make_plan(config, target, _TASK.value)
    except ConfigError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    advice = [] if plan.compiled.memory.fits else remedies(plan)
    _print(console, plan_json(plan, _FRACTION.value) | {"remedies": advice}, plan_table(plan, _FRACTION.value))
    if not _JSON.value:
        console.print("\n".join(advice), highlight=False)


def _fit(config: RunConfig, target: Slice) -> Plan:
    """The best plan, or the last that failed; tells on stderr what was tried."""
    best, last = None, None
    for last in largest_fit(config, target, lambda changed: make_plan(changed, target, _TASK.value)):
        memory = last.compiled.memory
        verdict = "fits" if memory.fits else "does not fit"
        remat = last.config.model.decoder.remat
        print(f"{last.rows_per_part} rows, remat {remat}: {memory.peak / GIB:.2f} GiB, {verdict}", file=sys.stderr)
        best = last if memory.fits else best
    assert last is not None
    return best or last


def _print(console: rich.console.Console, as_json: dict, table: rich.table.Table) -> None:
    if _JSON.value:
        print(json.dumps(as_json))
    else:
        console.print(table)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "topology"])
    app.run(main, flags_parser=flags_parser(__doc__))
