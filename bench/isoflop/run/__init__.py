"""Runs an isoFLOP study: the grid of runs, their scheduler, and the measurements besides training."""
