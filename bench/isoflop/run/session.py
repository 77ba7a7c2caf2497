"""One session of a study: the study's record on disk, the session's deadline, and the time of all sessions."""

from __future__ import annotations

import time
from pathlib import Path

from bench.errors import Interrupted
from bench.records.isoflop import FILE, Study


class Session:
    """The study as it is now, to be saved in `folder` whenever something has been measured.

    minutes: how long the session may take; None: no limit. earlier: the study as earlier sessions left it, None before
    the first. started: when the session began, in seconds by time.monotonic; None: now.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        minutes: float | None = None,
        earlier: Study | None = None,
        started: float | None = None,
    ):
        self.study, self.folder = study, folder
        self._started = time.monotonic() if started is None else started
        self.deadline = None if minutes is None else self._started + 60 * minutes
        self._earlier_seconds: float | None = 0.0
        if earlier is not None:  # unknown if a session trained and did not record its time
            self._earlier_seconds = earlier.study_seconds if earlier.worker_seconds else earlier.study_seconds or 0.0

    def check(self) -> None:
        """Raises Interrupted past the deadline."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise Interrupted

    def save(self) -> None:
        """Write the study, with the time of all sessions; absent if the time of one is unknown."""
        known = self._earlier_seconds
        self.study.study_seconds = None if known is None else known + time.monotonic() - self._started
        self.study.save(self.folder / FILE)
