"""Runs an isoFLOP study: the grid of runs, their scheduler, and what is measured beside training."""
