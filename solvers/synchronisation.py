"""Frame-phase synchronisation: the phases of all frames, aligned at once over the whole scan.

Neighbours agree on their phases after some iterations, but that goes from frame to frame like heat: the iterations that a projection
algorithm needs grow with the number of frames. The leading eigenvector of the frames' Gramian tells all phases together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batches
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs import Verbs

#: One complex number for each frame of this rank.
Vector = NDArray[np.complex128]

#: Products with the Gramian that one synchronisation may cost.
_MOST_PRODUCTS = 60
#: The eigenvector is good enough when its residual is this share of the waves' misfit, or lost in the rounding of complex64.
_SHARE, _ROUNDING = 0.03, 3e-8


def synchronise(state: State, batches: Batches, do: Verbs, ranks: Ranks, inertia: float) -> None:
    """psi_j <- omega_j psi_j with the phases omega that make all frames agree best; all ranks call it together.

    omega is v / |v| of the leading eigenvector v of the frames' Gramian (Marchesini et al., Inverse Problems 29, 115009 (2013)), turned
    by one phase for all, so that waves that agree stay as they are. The search starts from the phases that the waves have: since they
    keep what was found the last time, it goes on from there.

    Args:
        inertia: regularises the overlap as in the object's update, as a share of the strongest illumination.
    """
    gramian = Gramian(state, batches, do, ranks, inertia)
    vector = leading_eigenvector(gramian.times, gramian.lengths.astype(np.complex128), ranks)
    turn = ranks.sum(np.array([(vector.conj() * gramian.lengths).sum()]))[0]
    phases = _phase(vector) * _phase(turn)
    for b in batches:
        do.frame_phases(state.waves[b.index], phases[b.index], b)
    do.finish()


class Gramian:
    """H_ij = <psi_i, Pi psi_j> / (|psi_i| |psi_j|), with Pi the projection onto waves P O_j of one object; never stored.

    lengths: (frame,) |psi_j| of this rank's frames
    """

    def __init__(self, state: State, batches: Batches, do: Verbs, ranks: Ranks, inertia: float) -> None:
        self._state, self._batches, self._do, self._ranks, self._inertia = state, batches, do, ranks, inertia
        self._light = do.sums(state.object)[1]
        powers = []
        for b in batches:
            do.coverage_sums(self._light, state.probe, b)
            powers.append(do.frame_powers(state.waves[b.index], b))
        do.finish()
        ranks.sum(self._light)
        self.lengths = np.sqrt(np.concatenate(powers))
        self._weights = np.where(self.lengths > 0, 1 / np.maximum(self.lengths, np.finfo(np.float64).tiny), 0)

    def times(self, vector: Vector) -> Vector:
        """H v: the waves, each with its weight, become an object, and each wave is compared with what that object makes of it."""
        state, do, weights = self._state, self._do, vector * self._weights
        num, (image, _) = do.sums(state.object)[0], do.sums(state.object)
        for b in self._batches:
            do.spread(num, state.waves[b.index], weights[b.index], state.probe, b)
        do.finish()
        do.quotient(image, self._ranks.sum(num), self._light, self._inertia)
        products = [do.gather(state.waves[b.index], image, state.probe, b) for b in self._batches]
        do.finish()
        return np.asarray(np.concatenate(products) * self._weights)


def leading_eigenvector(times: Callable[[Vector], Vector], start: Vector, ranks: Ranks) -> Vector:
    """The unit eigenvector of the largest eigenvalue, at most 1, of a Hermitian matrix whose rows are spread over the ranks.

    Locally optimal conjugate gradients on the Rayleigh quotient (Knyazev, SIAM J. Sci. Comput. 23, 517 (2001)): each step takes the
    best vector in the space of the last one x, its residual r and the last direction p, for one product with the matrix.
    """
    x = start / max(_norm(start, ranks), np.finfo(np.float64).tiny)
    tries, images = x[None], times(x)[None]
    for _ in range(_MOST_PRODUCTS - 1):
        value = ranks.sum(np.array([(tries[0].conj() * images[0]).sum().real]))[0]
        residual = images[0] - value * tries[0]
        length = _norm(residual, ranks)
        if ranks.largest(int(length > max(_SHARE * (1 - value), _ROUNDING))) == 0:
            break
        residual /= length
        tries = np.stack([tries[0], residual, *tries[1:]])
        images = np.stack([images[0], times(residual), *images[1:]])
        tries, images = _best_of(tries, images, ranks)
    return np.asarray(tries[0])


def _best_of(tries: Vector, images: Vector, ranks: Ranks) -> tuple[Vector, Vector]:
    """The combination of ``tries`` (try, frame) with the largest Rayleigh quotient, and its part without the first; and their images."""
    # No BLAS on long vectors: it would wake its own threads, which then stand in the way of the verbs'.
    overlaps, values = ranks.sum(np.stack([np.einsum("an,bn->ab", tries.conj(), other) for other in (tries, images)]))
    sizes, axes = np.linalg.eigh(overlaps)
    kept = sizes > 1e-12 * sizes[-1]
    basis = axes[:, kept] / np.sqrt(sizes[kept])
    best = basis @ np.linalg.eigh(basis.conj().T @ values @ basis)[1][:, -1]
    best *= np.conj(_phase(best[0]))
    direction = np.where(np.arange(len(best)) == 0, 0, best)
    direction /= max(np.sqrt((direction.conj() @ overlaps @ direction).real), np.finfo(np.float64).tiny)
    both = np.stack([best, direction])
    return np.einsum("ab,bn->an", both, tries), np.einsum("ab,bn->an", both, images)


def _norm(vector: Vector, ranks: Ranks) -> float:
    return float(np.sqrt(ranks.sum(np.array([np.square(np.abs(vector)).sum()]))[0]))


def _phase(number: Any) -> Any:
    """number / |number|; 1 for 0"""
    return np.where(number == 0, 1, number / np.maximum(np.abs(number), np.finfo(np.float64).tiny))
