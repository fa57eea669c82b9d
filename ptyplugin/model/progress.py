"""Progress and Reconstruction: what comes out of a solver."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model.geometry import Geometry
from ptyplugin.model.ring_correlation import RingCorrelation
from ptyplugin.model.verdict import Verdict

#: The errors, one definition each, in progress and quality alike.
#: error: sum((sqrt(I) - |F(P O)|)^2) / sum(I) over good pixels and all frames, fitted and held out, object and probe frozen.
#: held_out_error: the same over the few frames that the fit never sees, if there are any.
#: running_error: the same sum as a sweep sees it on its way, object and probe changing under it.
#: constraint_residual: what the reflected wave of a difference map shows; not comparable with the others.
ErrorName = Literal["error", "held_out_error", "running_error", "constraint_residual"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One iteration is done: the same event goes to log, bar, Tiled and web.

    job: the job's key; stage: the algorithm's name; iteration: 1 .. iterations over all stages; seconds: since the start
    errors: by name, only those that this iteration measured
    frames: how many a live job has by now; 0 where their number is fixed
    snapshot: whether a new Snapshot of the job is there (in its folder)
    """

    job: str
    stage: str
    iteration: int
    iterations: int
    seconds: float
    errors: dict[ErrorName, float]
    frames: int = 0
    snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """The image and all that is needed to trust it.

    object: (object mode, y, x) complex64; probe: (probe mode, y, x) complex64, the strongest mode first
    positions_m: (frame, yx) m, float64, mean over sub-steps
    positions_px: (frame, yx) float64, (row, column) of each patch's first pixel in the object array, as used: the patch lies at the
        nearest whole pixel, the probe is moved by the rest
    positions_start_px: the same as the scan said it, where positions were refined; else None
    mask: (y, x) uint8, 0 = good, as prepared (zero frequency in the middle in the far field)
    progress: one entry per iteration; quality: numbers by name; provenance: job, recipe, versions, times
    verdict: good, doubtful or failed, and why; None where nobody has judged
    frc: of two halves of the frames, if it was asked for
    background: (y, x) float32, counts of each frame that no wave makes, laid out as ``mask``; None where none was fitted
    intensities: (frame,) float32, how strong the beam was in each frame, relative to its mean; None where they are not known
    """

    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    geometry: Geometry
    positions_m: NDArray[np.float64]
    positions_px: NDArray[np.float64]
    mask: NDArray[np.uint8]
    progress: list[Progress]
    quality: dict[str, float]
    provenance: dict[str, Any] = field(default_factory=dict)
    positions_start_px: NDArray[np.float64] | None = None
    verdict: Verdict | None = None
    frc: RingCorrelation | None = None
    background: NDArray[np.float32] | None = None
    intensities: NDArray[np.float32] | None = None

    def __repr__(self) -> str:
        # Not the arrays: a session shows what an expression gives.
        pixel_y, _ = self.geometry.object_pixel_m
        error = "".join(f", error {value:.4g}" for name, value in self.quality.items() if name == "error")
        shapes = f"object {self.object.shape}, probe {self.probe.shape}, object pixel {pixel_y * 1e9:.4g} nm"
        verdict = f", {self.verdict.word}" if self.verdict else ""
        return f"<Reconstruction of {len(self.positions_m)} frames: {shapes}{error}{verdict}>"

    def with_resolution(self, frc: RingCorrelation) -> Reconstruction:
        """The same, with what two halves of its frames say about its resolution; also as ``quality["resolution_m"]``."""
        return replace(self, frc=frc, quality={**self.quality, "resolution_m": frc.resolution_m})

    @property
    def object_phase(self) -> NDArray[np.float32]:
        """Phase (y, x) of the first object mode, radians."""
        return np.asarray(np.angle(self.object[0]), dtype=np.float32)

    @property
    def object_amplitude(self) -> NDArray[np.float32]:
        """Amplitude (y, x) of the first object mode."""
        return np.asarray(np.abs(self.object[0]), dtype=np.float32)
