"""What datasets are prepared from: one file for each source, and the registry."""
