"""UNO: understanding-oriented post-training of a unified multimodal model, in JAX and Flax."""
