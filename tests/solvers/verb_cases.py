"""What every verb gives on a few frames, for comparing implementations."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

#: Of float32. The rounding of a sum of k terms grows with the root of k; 16 leaves room for the order of the terms.
EPS = float(np.finfo(np.float32).eps)


def geometry_of(shape: tuple[int, int], near_field: bool) -> Geometry:
    return Geometry(8000.0, 1.0, 75e-6, shape, focus_distance_m=5e-3 if near_field else None)


def random(rng: np.random.Generator, *shape: int) -> NDArray[np.complex64]:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


class Case:
    """5 frames, two of them in opposite corners of an object that is 9 x 7 px larger than they are; a sixth of the pixels masked."""

    def __init__(self, shape: tuple[int, int], modes: int, object_modes: int, substeps: int, kind: Any, frames: int = 5) -> None:
        rng = np.random.default_rng(shape[0] + 10 * modes)
        self.O, self.P = random(rng, object_modes, shape[0] + 9, shape[1] + 7), random(rng, modes, *shape)
        corners = rng.integers((0, 0), (10, 8), (frames, substeps, 2)).astype(np.int32)
        corners[0], corners[-1] = 0, (9, 7)
        counts = rng.poisson(30, (frames, *shape)).astype(kind)
        good = rng.random(shape) > 1 / 6
        counts[:, ~good] = 60_000
        self.b = Batch(slice(0, frames), corners, np.zeros(corners.shape, np.float32), counts, good)
        self.psi = random(rng, frames, modes * substeps * object_modes, *shape)

    def one(self, frame: int) -> Batch:
        """A batch of one of the frames."""
        index = slice(frame, frame + 1)
        return Batch(index, self.b.corners[index], self.b.rests[index], self.b.counts[index], self.b.good)


def distance(mine: Any, judge: Any) -> float:
    """Largest difference, relative to the largest number; shapes and types have to be the same."""
    mine, judge = np.asarray(mine), np.asarray(judge)
    assert mine.shape == judge.shape
    assert mine.dtype == judge.dtype
    return float(np.abs(mine - judge).max(initial=0) / max(np.abs(judge).max(initial=0), EPS))


def verb_results(do: Any, case: Case, b: Batch, geometry: Geometry) -> dict[str, tuple[Any, float]]:
    """What every verb gives on the frames of ``b``, by its name, and how many terms each number sums up.

    Where a wave on the detector is dark its phase is rounding: what has met the data is weighed with the modulus before.
    """
    O, P, psi, waves = case.O.copy(), case.P.copy(), case.psi[b.index].copy(), case.psi.shape[1]
    double = ReferenceVerbs(geometry, np.complex128)
    modulus = np.abs(double.to_detector(double.exit_waves(O, P, b).astype(np.complex128), b))
    pixels, frames = b.good.size, len(b)
    gave: dict[str, tuple[Any, float]] = {}

    def keep(name: str, value: Any, terms: float = 1) -> None:
        do.finish()
        gave[name] = np.array(value), terms

    keep("exit_waves", do.exit_waves(O, P, b))
    keep("cut", do.cut(O, b))
    for overlap, wave in ((2, -1), (-1, 1), (1, 0), (0.7, 0.4)):
        keep(f"reflect {overlap} {wave}", do.reflect(psi, O, P, b, overlap, wave), 2)
    keep("to_detector", do.to_detector(do.exit_waves(O, P, b), b), np.log2(pixels))
    keep("to_detector of an array", do.to_detector(psi.copy(), b), np.log2(pixels))
    keep("to_sample", do.to_sample(do.to_detector(do.exit_waves(O, P, b), b), b), 2 * np.log2(pixels))
    keep("to_sample of an array", do.to_sample(psi.copy(), b), np.log2(pixels))
    for slack in (0.0, 0.1):
        A = psi.copy()
        do.onto_modulus(A, b, slack)
        keep(f"onto_modulus {slack} of an array", A)
        A = do.to_detector(do.exit_waves(O, P, b), b)
        residual = do.zero() + do.onto_modulus(A, b, slack)
        back = np.asarray(do.to_sample(A, b), dtype=np.complex128)
        keep(f"onto_modulus {slack} and back", double.to_detector(back, b) * modulus, 2 * np.log2(pixels))
        keep(f"onto_modulus {slack} residual", np.asarray(residual.read()), pixels)
    keep("modulus_residual", np.asarray((do.zero() + do.modulus_residual(do.to_detector(do.exit_waves(O, P, b), b), b)).read()), pixels)
    keep("model_counts", do.model_counts(do.to_detector(do.exit_waves(O, P, b), b), b), 2 * np.log2(pixels))
    for wave, data, overlap in ((1, 1, -1), (1, 0.6, -0.6), (0.5, 0.2, 0.3)):
        moved = psi.copy()
        do.advance(moved, 3 * psi[::-1].copy(), O, P, b, wave, data, overlap)
        keep(f"advance {wave} {data} {overlap}", moved, 3)
    for name, verb, X, Y in (("object_sums", do.object_sums, O, P), ("probe_sums", do.probe_sums, P, O)):
        num, den = do.sums(X)
        verb(num, den, psi, Y, b)
        keep(name + " num", num, frames * waves)
        keep(name + " den", den, frames * waves)
        step = X.copy()
        do.quotient(step, num, den, 1e-3)
        keep("quotient of " + name, step[..., den > 0.1 * den.max()], frames * waves)
    den = do.sums(O)[1]
    do.coverage_sums(den, P, b)
    keep("coverage_sums", den, frames * waves)
    num, other = do.sums(O)
    do.weigh(num, other, O, den)
    keep("weigh num", num, frames * waves)
    keep("weigh den", other, frames * waves)
    for damping in (1.0, 0.3):
        patches, d, stepped = do.cut(O, b), do.reflect(psi, O, P, b, -1, 1), O.copy()
        do.object_step(stepped, P, d, b, 0.7, damping)
        keep(f"object_step {damping}", stepped, frames * waves)
        stepped = P.copy()
        do.probe_step(stepped, patches, d, b, 0.7, damping)
        keep(f"probe_step {damping}", stepped, frames * waves)
    do.clip_modulus(O, 1.2)
    keep("clip_modulus", O)
    do.fix_power(P, O, 500.0)
    keep("fix_power P", P)
    keep("fix_power O", O)
    return gave
