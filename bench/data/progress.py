"""Progress in the terminal while text is read, split and tokenised: from the first second on, gone at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

_QUIET_SECONDS = 0.5  # what takes less is not shown


def shown(texts: Iterable[str], work: str) -> Iterator[str]:
    """The same texts; the terminal shows how many characters have gone by."""
    from tqdm import tqdm

    with tqdm(desc=work, unit=" characters", unit_scale=True, delay=_QUIET_SECONDS, leave=False) as bar:
        for text in texts:
            yield text
            bar.update(len(text))


@contextmanager
def timed(work: str) -> Iterator[None]:
    """The terminal shows how long the work inside has taken: for work of a library that reports nothing."""
    from tqdm import tqdm

    done = Event()

    def show() -> None:
        if done.wait(_QUIET_SECONDS):
            return
        with tqdm(desc=work, bar_format="{desc}: {elapsed}", leave=False) as bar:
            while not done.wait(1.0):
                bar.refresh()

    thread = Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
