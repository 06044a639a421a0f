"""What every command does the same way: errors, flags, JSON, memory, signals."""
