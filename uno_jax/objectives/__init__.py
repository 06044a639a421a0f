"""The losses, their weighted sum, and the randomness of a step."""
