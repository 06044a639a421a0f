"""How commands read their command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from absl import flags


def flags_parser(usage: str | None) -> Callable[[Sequence[str]], list[str]]:
    """absl's parser for `app.run`, with an override of a field that does not exist as one line instead of a traceback;
    `usage` is what follows a flag that does not exist."""

    def parse(arguments: Sequence[str]) -> list[str]:
        try:
            return flags.FLAGS(arguments)
        except flags.Error as error:
            sys.exit(f"{error}\nUsage: {usage}")
        except (AttributeError, KeyError, TypeError) as error:
            reason = str(error.args[0] if error.args else error).replace("\n", " ").strip("'\" ")
            overrides = [argument for argument in arguments if argument.startswith("--config.")]
            sys.exit(f"an override names no field of the config: {reason} (given: {' '.join(overrides)})")

    return parse
