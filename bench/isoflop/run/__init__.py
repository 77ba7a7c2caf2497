"""Runs an isoFLOP study: the grid of runs, their scheduler, and the measurements other than training."""
