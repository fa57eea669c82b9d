"""RingCorrelation: how finely an image resolves, from two images that share no frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RingCorrelation:
    """Fourier ring correlation of two images from half of the frames each.

    frequency_per_m: (ring,) cycles per metre; correlation: (ring,) -1 .. 1
    half_bit, one_bit: (ring,) what it must exceed for half a bit or one bit of information per pixel (van Heel & Schatz 2005)
    resolution_m: half the period at which it falls below ``half_bit``: the width of the finest line that is resolved
    """

    frequency_per_m: NDArray[np.float64]
    correlation: NDArray[np.float64]
    half_bit: NDArray[np.float64]
    one_bit: NDArray[np.float64]
    resolution_m: float

    def __repr__(self) -> str:
        return f"<RingCorrelation of {len(self.correlation)} rings, resolution {self.resolution_m * 1e9:.3g} nm (half period)>"
