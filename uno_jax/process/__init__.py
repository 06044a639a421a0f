"""Process-level code shared by all commands: errors, flags, JSON, memory, signals, compilation cache."""
