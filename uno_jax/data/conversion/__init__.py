"""Makes the shards of a dataset from the items of a source."""
