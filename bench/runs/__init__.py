"""One run from top to bottom, a comparison of runs, a dry run, and finished runs loaded again."""
