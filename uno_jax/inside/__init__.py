"""What a checkpoint computes inside, measured on noised pictures."""
