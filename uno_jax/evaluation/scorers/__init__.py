"""Scorers from PyPI, each run in an environment of its own (see `docs/evaluation.md`)."""
