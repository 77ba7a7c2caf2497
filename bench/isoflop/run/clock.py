"""The wall clock of a session: when it has to stop, and how long the study has taken over all of them."""

from __future__ import annotations

import time

from bench.errors import Interrupted
from bench.records.isoflop import Study


class Clock:
    """Runs from when it is made. `minutes`: how long this session may take; None: as long as it takes."""

    def __init__(self, minutes: float | None):
        self.started = time.monotonic()
        self.deadline = self.started + 60 * minutes if minutes is not None else None
        self._earlier: float | None = 0.0

    def go_on_from(self, earlier: Study) -> None:
        """Count from what earlier sessions took; where they trained and did not write that down, do not count."""
        self._earlier = earlier.study_seconds if earlier.worker_seconds else earlier.study_seconds or 0.0

    def check(self) -> None:
        """Raises Interrupted past the deadline."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise Interrupted

    def note(self, study: Study) -> None:
        """Write the time of all sessions into `study`; absent where one of them is not known."""
        study.study_seconds = None if self._earlier is None else self._earlier + time.monotonic() - self.started
