"""Says before the run whether it fits and how fast it can be:
`python -m uno_jax.aot --config=configs/bagel_7b_uno.py --topology=v5e:4x4`.

Compiles the real train step for a TPU slice that is not there. Needs libtpu (requirements-tpu.txt), and no TPU.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

# The TPU compiler asks no device, and says nothing but errors.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax
import rich.console
from absl import app, flags, logging
from ml_collections import config_flags

from uno_jax.command_line import flags_parser
from uno_jax.config import ConfigError, from_config_dict
from uno_jax.planning.chips import parse_slice
from uno_jax.planning.plan import make_plan
from uno_jax.planning.report import plan_json, plan_table
from uno_jax.run_config import RunConfig

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config file; --config.any.field=value overrides it.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "The slice: v5e:4x4, v5p:2x2x2, 2xv5e:16x16 (two slices).")
_TASK = flags.DEFINE_enum(
    "task", "text_to_image", ["text_to_image", "editing"], "What the rows are taken to be full of."
)
_FRACTION = flags.DEFINE_float("fraction", 0.6, "Share of the roofline that speeds and hours are stated for.")
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object, and nothing else.")


def main(arguments: Sequence[str]) -> None:
    """Plans, and says in one message what is wrong with the config if something is."""
    if len(arguments) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(arguments[1:])}")
    # Whatever this host has: nothing runs, so nothing is to be claimed.
    jax.config.update("jax_platforms", "cpu")
    logging.set_verbosity(logging.WARNING)
    try:
        config = from_config_dict(_CONFIG.value, RunConfig)
        plan = make_plan(config, parse_slice(str(_TOPOLOGY.value)), _TASK.value)
    except ConfigError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if _JSON.value:
        print(json.dumps(plan_json(plan, _FRACTION.value)))
    else:
        rich.console.Console(width=140).print(plan_table(plan, _FRACTION.value))


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "topology"])
    app.run(main, flags_parser=flags_parser(__doc__))
