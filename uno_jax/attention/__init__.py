"""Who may look at whom, and the attention derived from it."""
