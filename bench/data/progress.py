"""Progress in the terminal while text is read, split and tokenised, or a run is measured: gone at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

_QUIET_SECONDS = 0.5  # what takes less is not shown
_DRAWN_EVERY = 1.0  # seconds


def shown(texts: Iterable[str], work: str) -> Iterator[str]:
    """The same texts; the terminal shows how many characters have gone by."""
    characters = 0
    with _drawn(f"{work}: {{n_fmt}} characters, {{elapsed}}", lambda: characters):
        for text in texts:
            yield text
            characters += len(text)


@contextmanager
def timed(work: str) -> Iterator[None]:
    """The terminal shows how long the work inside has taken: for work that reports nothing."""
    with _drawn(f"{work}: {{elapsed}}", lambda: 0):
        yield


@contextmanager
def _drawn(layout: str, count: Callable[[], int]) -> Iterator[None]:
    """A line of tqdm's, drawn by a thread every second, however long one text takes."""
    from tqdm import tqdm

    done = Event()

    def draw() -> None:
        if done.wait(_QUIET_SECONDS):
            return
        with tqdm(bar_format=layout, unit_scale=True, leave=False) as line:
            while True:
                line.n = count()
                line.refresh()
                if done.wait(_DRAWN_EVERY):
                    return

    thread = Thread(target=draw, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
