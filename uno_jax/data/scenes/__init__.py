"""Procedural scenes of coloured shapes: contents, pictures, texts, edits, and an exact scorer."""
