"""UNO: understanding-oriented post-training of a unified multimodal model, in JAX and Flax."""

__version__ = "0.1.0"
