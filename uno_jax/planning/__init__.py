"""What a program needs and how fast it can be, read off its shapes, its jaxpr and its compiled form."""
