"""Data sources: one file per source, and the registry."""
