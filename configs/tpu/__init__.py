"""Configs of post-training runs on TPU slices, one per slice."""
