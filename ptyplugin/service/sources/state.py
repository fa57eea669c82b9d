"""What a source has to say about itself, for people and for /healthz."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class SourceState:
    """How a source is. Times are Unix seconds.

    counts: documents (taken), refused (could not be used), runs (that ended), healed (asked from the catalog), jobs (handed over), ...
    last_error: what went wrong last, in one sentence, and when; it may be long over
    """

    name: str
    connected: bool = False
    last_document_s: float | None = None
    counts: Counter[str] = field(default_factory=Counter)
    last_error: str | None = None
    last_error_s: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, what: str, by: int = 1) -> None:
        """So many more of these."""
        with self._lock:
            self.counts[what] += by

    def took_document(self) -> None:
        """A document came that could be decoded."""
        self.last_document_s = time.time()
        self.count("documents")

    def took_frame(self) -> None:
        """A frame came and is kept."""
        self.last_document_s = time.time()
        self.count("frames")

    def trouble(self, sentence: str) -> None:
        """Remember what went wrong."""
        self.last_error, self.last_error_s = sentence, time.time()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        with self._lock:
            counts = dict(sorted(self.counts.items()))
        return {
            "name": self.name,
            "connected": self.connected,
            "last_document_s": self.last_document_s,
            "counts": counts,
            "last_error": self.last_error,
            "last_error_s": self.last_error_s,
        }
