"""The isoFLOP study: its runs, how they are run, what they show, and its report."""
