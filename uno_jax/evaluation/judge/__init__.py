"""Judges of pictures: language models behind an endpoint of the user (see `docs/evaluation.md`)."""
