"""Sampling pictures and text from a trained model."""
