"""How far a running job is, for whoever looks: one small file in the job's folder, replaced now and then by who runs it."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ptyplugin.model import ErrorName, Progress

_log = logging.getLogger(__name__)
_FILE = "progress.json"
#: At most so often is the file replaced, seconds.
PERIOD_S = 0.5


class JobProgress(BaseModel):
    """The last iteration that was heard of.

    stage: the algorithm; iteration: 1 .. iterations over all stages; errors: by name, the last one of each
    seconds: since the solver began; left_s: estimate of what is left, seconds; at_s: when this was so, Unix seconds
    frames: how many a live job has by now; 0 where their number is fixed
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    stage: str
    iteration: int
    iterations: int
    errors: dict[str, float]
    seconds: float
    left_s: float
    at_s: float
    frames: int = 0


class ProgressFile:
    """Keeps the file in ``folder`` up to date. What goes wrong with it is no matter of the job: it is only logged."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._written_s = -math.inf
        self._first: Progress | None = None
        self._errors: dict[ErrorName, float] = {}

    def __call__(self, progress: Progress) -> None:
        """An iteration is done."""
        self._first = self._first or progress
        self._errors.update({name: value for name, value in progress.errors.items() if math.isfinite(value)})
        now = time.monotonic()
        if now - self._written_s >= PERIOD_S:
            self._written_s = now
            self._replace(self._text(progress))

    def remove(self) -> None:
        """The job runs no more."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            _log.debug("%s stays: %s", self._path, error)

    def _text(self, progress: Progress) -> str:
        state = {
            "stage": progress.stage,
            "iteration": progress.iteration,
            "iterations": progress.iterations,
            "errors": self._errors,
            "seconds": progress.seconds,
            "left_s": (progress.iterations - progress.iteration) * self._per_iteration_s(progress),
            "at_s": time.time(),
            "frames": progress.frames,
        }
        return json.dumps(state)

    def _per_iteration_s(self, progress: Progress) -> float:
        # The first one has waited for the frames, and a job that goes on from a checkpoint does not begin with number 1.
        first = self._first
        if first is None or first.iteration >= progress.iteration:
            return progress.seconds
        return (progress.seconds - first.seconds) / (progress.iteration - first.iteration)

    def _replace(self, text: str) -> None:
        new = self._path.with_suffix(".new")
        try:
            new.write_text(text, encoding="utf-8")
            new.replace(self._path)
        except OSError as error:
            _log.debug("%s cannot be written: %s", self._path, error)


def read_progress(folder: Path) -> JobProgress | None:
    """How far the job in this folder is; None when nothing was heard of it."""
    try:
        return JobProgress.model_validate_json((folder / _FILE).read_bytes())
    except (OSError, ValidationError):
        return None
