"""DM: the difference map."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from dataclasses import dataclass

from ptyplugin.solvers.batches import Batches
from ptyplugin.solvers.options import option
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs import DeviceScalar, Verbs


@dataclass(frozen=True, slots=True)
class DifferenceMapOptions:
    """Options of DM."""

    beta: float = option(1.0, 0.1, 1.0, "length of the step between the two constraints")
    slack: float = option(0.1, 0.0, 0.9, "share of the difference to the data that the modulus constraint leaves")
    overlap_rounds: int = option(2, 1, 20, "how often object and probe are fitted to the waves in one iteration")
    probe_from: int = option(2, 1, 1_000_000, "iteration of the stage from which on the probe is updated")
    object_inertia: float = option(0.1, 1e-9, 1.0, "weight of the old object, as a share of the strongest illumination")
    probe_inertia: float = option(1e-2, 1e-9, 10.0, "weight of the old probe, as a share of the largest sum over frames")
    object_max: float = option(2.0, 0.5, 1e6, "largest modulus of the object; about 1 where nothing absorbs")


def sweep(state: State, batches: Batches, do: Verbs, ranks: Ranks, options: DifferenceMapOptions, iteration: int) -> DeviceScalar:
    """One iteration of the difference map (Thibault et al., Ultramicroscopy 109, 338 (2009), eqs. 5-9).

    Pi_F puts a wave onto the measured modulus, O_j is the patch of frame j. With exit waves psi_j::

        psi_j <- psi_j + beta [ Pi_F(2 P O_j - psi_j) - P O_j ]      (1)
        O     <- sum_j P* psi_j / sum_j |P|^2                        (2)
        P     <- sum_j O_j* psi_j / sum_j |O_j|^2                    (3)

    (2) and (3) sum over all frames of all ranks and are solved by turns, ``overlap_rounds`` times. Both keep a little of the
    old value (inertia), and the object's modulus is limited: else both run away where hardly any light falls.
    Gives the sum behind ``constraint_residual``: the distance of the reflected waves from the data.
    """
    O, P, psi = state.object, state.probe, state.waves
    residual = do.zero()
    for b in batches:
        A = do.to_detector(do.reflect(psi[b.index], O, P, b, 2, -1), b)
        residual += do.onto_modulus(A, b, options.slack)
        do.advance(psi[b.index], do.to_sample(A, b), O, P, b, 1, options.beta, -options.beta)  # (1)
    for _ in range(options.overlap_rounds):
        num, den = do.sums(O)
        for b in batches:
            do.object_sums(num, den, psi[b.index], P, b)
        do.quotient(O, *ranks.sum_canvas(num, den, state.window), options.object_inertia)  # (2)
        do.clip_modulus(O, options.object_max)
        if iteration < options.probe_from:
            break
        num, den = do.sums(P)
        for b in batches:
            do.probe_sums(num, den, psi[b.index], O, b)
        do.quotient(P, ranks.sum(num), ranks.sum(den), options.probe_inertia)  # (3)
    return ranks.sum(residual)
