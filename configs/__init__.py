"""Configs of training runs: each a small file over `base`."""
