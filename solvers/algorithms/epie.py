"""ePIE: the extended ptychographical iterative engine."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from dataclasses import dataclass

from ptyplugin.solvers.batches import Batches
from ptyplugin.solvers.options import option
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs import DeviceScalar, Verbs


@dataclass(frozen=True, slots=True)
class EpieOptions:
    """Options of ePIE."""

    object_step: float = option(0.5, 0.0, 2.0, "length of the object's step")
    probe_step: float = option(0.2, 0.0, 2.0, "length of the probe's step")
    object_damping: float = option(1.0, 0.01, 1.0, "1: divide by the strongest illumination (ePIE), less: more by the local one (rPIE)")
    probe_damping: float = option(1.0, 0.01, 1.0, "1: divide by the strongest transmission (ePIE), less: more by the local one (rPIE)")
    probe_from: int = option(1, 1, 1_000_000, "iteration of the stage from which on the probe is updated")
    object_max: float = option(2.0, 0.5, 1e6, "largest modulus of the object; about 1 where nothing absorbs")


def sweep(state: State, batches: Batches, do: Verbs, ranks: Ranks, options: EpieOptions, iteration: int) -> DeviceScalar:
    """One sweep of ePIE over all frames in random order (Maiden & Rodenburg, Ultramicroscopy 109, 1256 (2009), eqs. 2-7).

    Pi_F puts a wave onto the measured modulus, O_j is the patch of frame j. For one frame after the other::

        d_j = Pi_F(P O_j) - P O_j                                    (1)
        O_j <- O_j + alpha P* d_j / max |P|^2                        (2)
        P   <- P + beta O_j* d_j / max |O_j|^2                       (3)

    A damping below 1 gives the regularised denominators of rPIE (Maiden, Johnson & Li, Optica 4, 736 (2017), eqs. 20-21).
    Several ranks: each sweeps the frames of its own compact region on its own copy of object and probe; after the sweep the
    copies are merged, the object by the mean weighted with each rank's illumination sum_j |P|^2, the probe by the mean weighted
    with frames (4). So two ranks do not compute what one computes, but converge to it.
    Gives the sum behind ``running_error``: the distance of each P O_j from the data, seen on the way.
    """
    O, P = state.object, state.probe
    residual = do.zero()
    for b in batches:
        patches = do.cut(O, b)
        A = do.to_detector(do.exit_waves(O, P, b), b)
        residual += do.onto_modulus(A, b, 0)
        d = do.reflect(do.to_sample(A, b), O, P, b, -1, 1)  # (1)
        do.object_step(O, P, d, b, options.object_step, options.object_damping)  # (2)
        if iteration >= options.probe_from:
            do.probe_step(P, patches, d, b, options.probe_step, options.probe_damping)  # (3)
    do.clip_modulus(O, options.object_max)
    num, den = do.sums(O)
    for b in batches:
        do.coverage_sums(den, P, b)
    do.weigh(num, den, O, den)
    do.quotient(O, *ranks.sum_canvas(num, den, state.window), 0)  # (4)
    num, den = do.sums(P)
    do.weigh(num, den, P, batches.frame_count)
    do.quotient(P, ranks.sum(num), ranks.sum(den), 0)  # (4)
    return ranks.sum(residual)
