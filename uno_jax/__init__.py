"""UNO: understanding-oriented post-training of a unified multimodal model, in JAX and Flax."""

import sys

from uno_jax.process.interrupts import end_at_interrupts

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # `python -m uno_jax.train ..` has begun, and imports this package before the command
    end_at_interrupts()
