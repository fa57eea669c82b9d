"""Waves to the detector and back in three kernels, with an FFT of our own in shared memory: two round trips through memory instead of six.

``plan_for`` says whether a shape is covered; ``FusedFft`` launches, on plain device arrays (far field; waves (frame, wave, y, x), contiguous
complex64; ``model``: the arguments that MODEL_PARAMETERS in model.cuh lists; ``measured``: the last six of DETECTOR_PARAMETERS in
detector.cuh)::

    fused = FusedFft(device, plan_for(shape, waves, shared_limit_bytes))
    fused.rows(w, model, overlap)                       w = FFT along x of overlap P_j O_j
    fused.rows(w, model, overlap, psi, wave)            ... of overlap P_j O_j + wave psi_j        (w may be psi)
    fused.rows(w, None, 0.0, psi, 1.0)                  ... of psi_j
    fused.columns(w, ONTO_MODULUS, measured, residuals, slack=0.1)
                                                        FFT along y; verb; inverse FFT along y, all scales included
    fused.finish(w, w)                                  w = inverse FFT along x: what to_sample gives
    fused.finish(psi, w, model, wave, data, overlap)    psi_j <- wave psi_j + data w_j + overlap P_j O_j
    fused.finish(w, w, model, 0.0, wave, overlap)       w_j <- overlap P_j O_j + wave w_j
    fused.move_probe(moved, spectrum, rests)            P on frames: moved by the rests, from the FFT of P

``residuals`` (and ``likelihoods``): ``fused.partials(frames)`` slots of float64 each, whose sum is the number. psi is not read where its
weight is 0, nor P and O where theirs is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ptyplugin.solvers.verbs.cuda.device import Array, Device

Arguments = tuple[Any, ...]
#: What ``FusedFft.columns`` does on the detector: the verbs onto_modulus, likelihood_step (two kinds of noise), likelihood_gradient (three).
DetectorVerb = Literal[0, 1, 2, 3, 4, 5]
ONTO_MODULUS: DetectorVerb = 0
GAUSSIAN_STEP: DetectorVerb = 1
POISSON_STEP: DetectorVerb = 2
AMPLITUDE_GRADIENT: DetectorVerb = 3
GAUSSIAN_GRADIENT: DetectorVerb = 4
POISSON_GRADIENT: DetectorVerb = 5


class Side(NamedTuple):
    """How lines along one side of a frame are transformed. radices: of the passes; threads: of a line; lines: of a block."""

    radices: tuple[int, ...]
    threads: int
    lines: int


@dataclass(frozen=True, slots=True)
class FusedPlan:
    """How frames of one shape with so many waves each are transformed.

    held: where spectra wait until those of all waves are summed: 0 registers (one wave), 1 shared memory, 2 memory
    """

    shape: tuple[int, int]
    rows: Side
    columns: Side
    held: Literal[0, 1, 2]
    shared_bytes: int


def plan_for(shape: tuple[int, int], waves: int, shared_limit_bytes: int) -> FusedPlan | None:
    """The plan for frames of ``shape`` with so many ``waves`` each on a card whose blocks may have so much shared memory.

    None: a side is above 1024 px or has a factor that is not covered; cuFFT does it.
    """
    raise NotImplementedError


class FusedFft:
    """Launches the three kernels, and the two that move a probe. See the top of this file."""

    def __init__(self, device: Device, plan: FusedPlan) -> None:
        self._device, self.plan = device, plan

    def partials(self, frames: int) -> int:
        """How many numbers ``columns`` adds up to for a batch of so many frames."""
        raise NotImplementedError

    def rows(self, w: Array, model: Arguments | None, overlap: float, psi: Array | None = None, wave: float = 0.0) -> None:
        """w <- the FFT along x of overlap P_j O_j + wave psi_j; w and psi (frame, wave, y, x) may be the same."""
        raise NotImplementedError

    def columns(
        self,
        w: Array,
        verb: DetectorVerb,
        measured: Arguments,
        residuals: Array,
        likelihoods: Array | None = None,
        slack: float = 0.0,
    ) -> None:
        """w <- the inverse FFT along y of the verb's of the FFT along y of w, in place, times 1 / pixels of a frame.

        residuals (partials,) float64: what modulus_residual gives before the verb; likelihoods (partials,): of a gradient only
        """
        raise NotImplementedError

    def finish(
        self, target: Array, w: Array, model: Arguments | None = None, wave: float = 0.0, data: float = 1.0, overlap: float = 0.0
    ) -> None:
        """target_j <- wave target_j + data w_j + overlap P_j O_j, w being the inverse FFT along x of what it is; target may be w."""
        raise NotImplementedError

    def move_probe(self, moved: Array, spectrum: Array, rests: Arguments) -> None:
        """moved (frame, probe mode, substep, y, x) <- P moved by the rests; spectrum (probe mode, y, x): FFT of P; rests: frames, rests,
        sub-steps."""
        raise NotImplementedError
