"""Training: the optimiser and its schedule, the loop, and checkpoints that resume it."""
