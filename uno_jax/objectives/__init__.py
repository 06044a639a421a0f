"""The losses, their weighted sum, and the random numbers of a step."""
