"""Estimates of a program's memory and speed, from its shapes, its jaxpr and its compiled form."""
