"""The command `uno-jax`: `uno-jax train ..` runs `python -m uno_jax.train ..`."""

from __future__ import annotations

import difflib
import runpy
import sys
from pathlib import Path

from uno_jax.process.errors import exit_with_message
from uno_jax.process.interrupts import end_at_interrupts

COMMANDS = {
    "prepare_data": "prepare a dataset",
    "pretrain_vision": "pre-train the vision encoder of a small model on scenes",
    "train": "train a model",
    "sample": "generate and edit pictures",
    "chat": "chat with a model in a terminal",
    "demo": "generate, edit and ask on a web page",
    "serve": "serve a model to programs, with the endpoints of OpenAI's API",
    "convert": "import, export, inspect and compare checkpoints",
    "evaluate": "generate, score and report public benchmarks",
    "study": "compare post-training methods with an exact scorer",
    "look_inside": "see and measure what checkpoints compute of noised pictures",
    "aot": "compile a run for a TPU slice without its hardware, and check that it fits",
}
"""Command -> description. Each command is a module of this package."""

_CONFIGS = "print the folder of the built-in configs"


def main() -> None:
    """Runs the command named by the first argument, with the remaining arguments.

    Raises:
      SystemExit: with status 2 for an unknown command, or with the status of the command.
    """
    end_at_interrupts()
    name, arguments = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if name in ("-h", "--help"):
        lines = [f"  {command:16} {purpose}" for command, purpose in {**COMMANDS, "configs": _CONFIGS}.items()]
        with exit_with_message():
            print("usage: uno-jax COMMAND ..", "", *lines, "", "uno-jax COMMAND --help lists its options.", sep="\n")
    elif name == "configs":
        import configs

        print(Path(configs.__file__ or "").parent)
    elif name in COMMANDS:
        sys.argv = [sys.argv[0], *arguments]
        runpy.run_module(f"uno_jax.{name}", run_name="__main__", alter_sys=True)
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        known = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(COMMANDS)}, configs"
        print(f"uno-jax: unknown command {name!r}; {known}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
