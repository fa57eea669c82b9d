"""Trouble that lasts is said when it begins, when it changes, and now and then; not five times a second."""

from __future__ import annotations

import logging
import time

#: Seconds after which the same trouble is said again.
_AGAIN_S = 600.0


class Complaints:
    """What is wrong at present, said to ``log`` as warnings."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[str, float] = {}

    def say(self, sentence: str) -> None:
        """Log it, unless it was said a moment ago."""
        now = time.monotonic()
        self._said = {text: at for text, at in self._said.items() if now - at < _AGAIN_S}
        if sentence not in self._said:
            self._said[sentence] = now
            self._log.warning("%s", sentence)

    def over(self) -> None:
        """All is well again: the next trouble is a new one."""
        self._said.clear()
