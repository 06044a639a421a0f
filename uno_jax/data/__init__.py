"""Data sources, image transforms, tokenizer, sample plans, packing, and the grain pipeline."""
