"""What every command does the same way: errors, flags, memory, signals."""
