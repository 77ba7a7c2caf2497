"""The one kind of error that a user can correct: printed as a single line, exit status 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps


class UserError(Exception):
    """A mistake in a value, a file or the environment, worded for the person who can correct it.

    The message names the key or the file, what was found there, and what would work.
    `python -m bench` and its sister commands print it without a traceback and exit with status 2.
    """


class Interrupted(Exception):
    """Stopped by a signal or a deadline, with a checkpoint of what was under way."""


def out_of_memory(error: BaseException) -> str | None:
    """What to say of an allocation that failed, in Python or in torch; None for any other error."""
    words = ("can't allocate memory", "out of memory", "Cannot allocate memory", "failed to map segment")
    if not isinstance(error, MemoryError) and not any(word in str(error) for word in words):
        return None
    return (
        "not enough memory. Lower train.micro_batch_size, train.batch_size, evaluate.batch_size or the model's size, "
        "or raise the limit that this process has (ulimit -v)."
    )


def reports_errors(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """A command whose mistakes are one line on stderr and exit status 2; 130 if interrupted.

    A reader that has closed the output, as head does, has seen enough: that is no mistake.
    """

    @wraps(main)
    def reporting(arguments: Sequence[str] | None = None) -> int:
        try:
            status = main(arguments)
            sys.stdout.flush()
            return status
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print(file=sys.stderr)
            return 130
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
            return 0
        except OSError as error:
            print(f"error: {error.filename or 'standard output'}: {error.strerror or error}.", file=sys.stderr)
        except (MemoryError, RuntimeError, ImportError) as error:
            told = out_of_memory(error)
            if told is None:
                raise
            print(f"error: {told}", file=sys.stderr)
        return 2

    return reporting
