"""The isoFLOP study: which runs it consists of, how they are run, what they show, and its report."""
