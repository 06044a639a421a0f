"""Questions about pictures, answered before and after post-training (see `docs/evaluation.md`)."""
