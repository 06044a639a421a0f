"""Set-up of a command that runs JAX programs."""

from __future__ import annotations

import os

from absl import logging

from uno_jax.process.compilation_cache import keep_compiled_programs
from uno_jax.process.logs import hide_orbax
from uno_jax.process.memory import keep_freed_memory


def set_up_jax() -> None:
    """Keeps compiled programs, and freed memory on a CPU; hides what Orbax logs, in favour of our messages.

    Must be called before the first compilation.
    """
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        keep_freed_memory()
    logging.set_verbosity(logging.WARNING)
    hide_orbax()
    keep_compiled_programs()
