"""Sampling images and text from a trained model."""
