"""What is not perfect about a real instrument; each thing is off unless asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ptyplugin.model.errors import DeviceError


@dataclass(frozen=True, slots=True)
class Imperfections:
    """How far the instrument is from a perfect one.

    jitter_m: root mean square of the vibration of each stage; encoders see it
    encoder_noise_m: standard deviation of what an encoder says
    drift_m_per_s: the sample runs away along y and x, and no encoder sees it
    settling_m, settling_s: a line (and a move) begins this far off, and comes in within this time constant; encoders see it
    substeps: points of the way at which an exposure in motion is summed: 1 for none of the blur
    dead_pixels: pixels that always count 0
    gap_px: width of the gap between four modules, counted as 65535, as Eigers mark it
    beam_flicker: relative standard deviation of the beam's intensity from frame to frame; the ion chamber sees it
    """

    jitter_m: float = 0.0
    encoder_noise_m: float = 0.0
    drift_m_per_s: float = 0.0
    settling_m: float = 0.0
    settling_s: float = 0.02
    substeps: int = 3
    dead_pixels: int = 0
    gap_px: int = 0
    beam_flicker: float = 0.0

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Imperfections:
        """From texts like ``jitter_m=2e-8``, the command line's.

        Raises:
            DeviceError: an unknown name, or a value that cannot be.
        """
        return cls(**dict(_parsed(text) for text in texts))


def _parsed(text: str) -> tuple[str, Any]:
    kinds = {field.name: int if field.type == "int" else float for field in dataclasses.fields(Imperfections)}
    name, _, value = text.partition("=")
    if name not in kinds:
        raise DeviceError(f"{name!r} is no imperfection of the simulated instrument: choose from {', '.join(kinds)}, as NAME=VALUE.")
    try:
        number = kinds[name](value)
    except ValueError as error:
        raise DeviceError(f"the imperfection {text!r} needs a number: {name}=VALUE.") from error
    if not math.isfinite(number) or number < (name == "substeps") or (name == "settling_s" and number == 0):
        raise DeviceError(f"the imperfection {text!r} cannot be: give a number of at least {1 if name == 'substeps' else 0}.")
    return name, number
