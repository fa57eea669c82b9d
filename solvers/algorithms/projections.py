"""DM, RAAR, AP: the difference map, relaxed averaged alternating reflections, alternating projections. One projector."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ptyplugin.solvers.batches import Batch, Batches
from ptyplugin.solvers.options import option
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.state import State
from ptyplugin.solvers.synchronisation import synchronise
from ptyplugin.solvers.verbs import Complex, DeviceScalar, Verbs


class Coefficients(NamedTuple):
    """r, a and c of the projector; what is left to 1 is the weight of P O_j."""

    reflection: float
    wave: float
    data: float


_ALTERNATING = Coefficients(reflection=1, wave=0, data=1)


@dataclass(frozen=True, slots=True)
class ProjectionOptions:
    """Options that DM, RAAR and AP share."""

    slack: float = option(0.0, 0.0, 0.9, "share of the difference to the data that the modulus constraint leaves")
    synchronise: int = option(0, 0, 1_000_000, "align the phases of all frames every so many iterations; 0: never")
    overlap_rounds: int = option(1, 1, 20, "how often object and probe are fitted to the waves in one iteration")
    probe_from: int = option(2, 1, 1_000_000, "iteration of the stage from which on the probe is updated")
    object_inertia: float = option(0.1, 1e-9, 1.0, "weight of the old object, as a share of the strongest illumination")
    probe_inertia: float = option(1e-2, 1e-9, 10.0, "weight of the old probe, as a share of the largest sum over frames")
    object_max: float = option(2.0, 0.5, 1e6, "largest modulus of the object; about 1 where nothing absorbs")

    @property
    def needs_waves(self) -> bool:
        """Whether a sweep takes the waves of all frames at once."""
        return self.synchronise > 0


@dataclass(frozen=True, slots=True)
class DifferenceMapOptions(ProjectionOptions):
    """Options of DM."""

    slack: float = option(0.1, 0.0, 0.9, "share of the difference to the data that the modulus constraint leaves")
    beta: float = option(1.0, 0.1, 1.0, "length of the step between the two constraints")

    def coefficients(self, synchronising: bool) -> Coefficients:
        return _ALTERNATING if synchronising else Coefficients(reflection=2, wave=1, data=self.beta)


@dataclass(frozen=True, slots=True)
class RaarOptions(ProjectionOptions):
    """Options of RAAR."""

    beta: float = option(0.9, 0.1, 1.0, "share of the difference map in it; the rest pulls to waves that overlap without contradiction")

    def coefficients(self, synchronising: bool) -> Coefficients:
        return Coefficients(reflection=2, wave=self.beta, data=self.beta)


@dataclass(frozen=True, slots=True)
class AlternatingProjectionOptions(ProjectionOptions):
    """Options of AP."""

    def coefficients(self, synchronising: bool) -> Coefficients:
        return _ALTERNATING


def phase(options: ProjectionOptions, iteration: int) -> bool | None:
    """Whether the probe is updated; an iteration that synchronises looks at numbers."""
    return None if _synchronises(options, iteration) else iteration >= options.probe_from


def sweep(
    state: State,
    batches: Batches,
    do: Verbs,
    ranks: Ranks,
    options: DifferenceMapOptions | RaarOptions | AlternatingProjectionOptions,
    iteration: int,
) -> DeviceScalar:
    """One iteration of DM (Thibault et al., Ultramicroscopy 109, 338 (2009), eqs. 5-9), RAAR (Luke, Inverse Problems 21, 37 (2005),
    eq. 1.7, its support being our overlap) or AP (Marchesini et al., Inverse Problems 29, 115009 (2013), eq. 17).

    Pi_F puts a wave onto the measured modulus, O_j is the patch of frame j. With exit waves psi_j and coefficients r, a, c::

        psi_j <- a psi_j + c Pi_F(r P O_j + (1 - r) psi_j) + (1 - a - c) P O_j      (1)
        psi_j <- omega_j psi_j                                                      (2)
        O     <- sum_j P* psi_j / sum_j |P|^2                                       (3)
        P     <- sum_j O_j* psi_j / sum_j |O_j|^2                                   (4)

        DM:  r, a, c = 2, 1, beta      RAAR:  r, a, c = 2, beta, beta      AP:  r, a, c = 1, 0, 1

    (2), with phases omega_j that make all frames agree best, every ``synchronise``-th iteration (see ``synchronise``). In these
    DM takes the coefficients of AP: its waves stray too far from the data for their phases to mean anything.
    (3) and (4) sum over all frames of all ranks and are solved by turns, ``overlap_rounds`` times. Both keep a little of the
    old value (inertia), and the object's modulus is limited: else both run away where hardly any light falls.

    Where waves are not stored, which only AP without (2) allows, psi_j = Pi_F(P O_j) is computed again, from the old O and P.

    Gives the sum behind ``constraint_residual``, the distance of the reflected waves from the data; for AP, which reflects nothing,
    behind ``running_error``.
    """
    O, P, psi = state.object, state.probe, state.waves
    synchronising = _synchronises(options, iteration)
    r, a, c = options.coefficients(synchronising)
    residual, (num, den) = do.zero(), do.sums(O)
    stored, projected = len(psi) > 0, _projected(state, do, options.slack)
    for b in batches:
        A = do.to_detector(do.reflect(psi[b.index], O, P, b, r, 1 - r) if stored else do.exit_waves(O, P, b), b)
        residual += do.onto_modulus(A, b, options.slack)
        if stored:
            do.advance(psi[b.index], do.to_sample(A, b), O, P, b, a, c, 1 - a - c)  # (1)
        if not synchronising:  # psi_j is at hand: one way through memory less
            do.object_sums(num, den, psi[b.index] if stored else do.to_sample(A, b), P, b)
    if synchronising:
        synchronise(state, batches, do, ranks, options.object_inertia)  # (2)
    for number in range(options.overlap_rounds):
        if synchronising or number:
            num, den = do.sums(O)
            for b in batches:
                do.object_sums(num, den, projected(b), P, b)
        do.quotient(O, *ranks.sum_canvas(num, den, state.window), options.object_inertia)  # (3)
        do.clip_modulus(O, options.object_max)
        if iteration < options.probe_from:
            break
        num, den = do.sums(P)
        for b in batches:
            do.probe_sums(num, den, projected(b), O, b)
        do.quotient(P, ranks.sum(num), ranks.sum(den), options.probe_inertia)  # (4)
    return ranks.sum(residual)


def _projected(state: State, do: Verbs, slack: float) -> Callable[[Batch], Complex]:
    """What gives psi_j after (1): stored waves, or else Pi_F(P O_j) of the object and the probe that there are now, computed again."""
    if len(state.waves):
        return lambda b: state.waves[b.index]
    O, P = do.copy(state.object), do.copy(state.probe)

    def again(b: Batch) -> Complex:
        A = do.to_detector(do.exit_waves(O, P, b), b)
        do.onto_modulus(A, b, slack)
        return do.to_sample(A, b)

    return again


def _synchronises(options: ProjectionOptions, iteration: int) -> bool:
    return options.synchronise > 0 and iteration % options.synchronise == 0
