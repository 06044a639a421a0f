"""Configs of post-training runs on TPU slices, one for each slice."""
