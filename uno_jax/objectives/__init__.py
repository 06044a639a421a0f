"""Flow matching, caption cross-entropy, metaquery regression, and their sum."""
