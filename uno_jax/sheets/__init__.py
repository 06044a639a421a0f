"""Picture sheets of a dataset's records and of a model's samples."""
