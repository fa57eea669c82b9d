"""Verdict: one word for how far to trust an image, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: good: nothing speaks against the image; doubtful: look at the reasons before using it; failed: do not use it.
Word = Literal["good", "doubtful", "failed"]
#: What the error did in the end.
Convergence = Literal["converged", "still falling", "climbing"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far to trust an image. ``reasons``: a sentence with numbers for each thing that speaks against it; none for "good"."""

    word: Word
    convergence: Convergence
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([f"{self.word}:", *self.reasons]) if self.reasons else self.word
