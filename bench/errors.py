"""The one kind of error that a user can correct: printed as a single line, exit status 2."""


class UserError(Exception):
    """A mistake in a value, a file or the environment, worded for the person who can correct it.

    The message names the key or the file, what was found there, and what would work.
    `python -m bench` and its sister commands print it without a traceback and exit with status 2.
    """


class Interrupted(Exception):
    """Stopped by a signal or a deadline; unfinished work has a checkpoint."""
