"""Which tokens may attend to which, and the attention derived from it."""
