"""Configs of training runs. Each changes some fields of `base` or of another config."""
