"""ePIE, rPIE, mPIE: the ptychographical iterative engines."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ptyplugin.solvers.batches import Batches
from ptyplugin.solvers.merging import merge_copies, merge_overlaps
from ptyplugin.solvers.options import option
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs import DeviceScalar, Verbs

_DAMPING = "1: divide by the strongest illumination, as ePIE does; less: more by the local one"
_PROBE_DAMPING = "1: divide by the strongest transmission, as ePIE does; less: more by the local one"


@dataclass(frozen=True, slots=True)
class _Common:
    object_step: float = option(0.5, 0.0, 2.0, "length of the object's step")
    probe_step: float = option(0.2, 0.0, 2.0, "length of the probe's step")
    batch: int = option(1, 1, 10_000, "frames, drawn at random, that step together from the same object and probe")
    parts: int = option(4, 1, 1000, "parts of a sweep; after each, copies of several ranks are merged, and mPIE's momentum acts")
    probe_from: int = option(1, 1, 1_000_000, "iteration of the stage from which on the probe is updated")
    slow_from: int = option(
        1_000_000, 1, 1_000_000, "iteration of the stage from which on steps shrink as 1 / iteration, and noise averages"
    )
    object_max: float = option(2.0, 0.5, 1e6, "largest modulus of the object; about 1 where nothing absorbs")


@dataclass(frozen=True, slots=True)
class EpieOptions(_Common):
    """Options of ePIE."""

    object_damping: ClassVar[float] = 1.0
    probe_damping: ClassVar[float] = 1.0
    friction: ClassVar[float] = 0.0


@dataclass(frozen=True, slots=True)
class RpieOptions(_Common):
    """Options of rPIE."""

    object_step: float = option(0.25, 0.0, 2.0, "length of the object's step")
    object_damping: float = option(0.1, 0.01, 1.0, _DAMPING)
    probe_damping: float = option(1.0, 0.01, 1.0, _PROBE_DAMPING)
    friction: ClassVar[float] = 0.0


@dataclass(frozen=True, slots=True)
class MpieOptions(_Common):
    """Options of mPIE."""

    object_step: float = option(0.3, 0.0, 2.0, "length of the object's step")
    probe_step: float = option(0.5, 0.0, 2.0, "length of the probe's step")
    object_damping: float = option(0.5, 0.01, 1.0, _DAMPING)
    probe_damping: float = option(1.0, 0.01, 1.0, _PROBE_DAMPING)
    slow_from: int = option(15, 1, 1_000_000, "iteration of the stage from which on steps shrink as 1 / iteration, and noise averages")
    friction: float = option(0.9, 0.0, 0.98, "share of its velocity that the object keeps from part to part")


def phase(options: _Common, iteration: int) -> bool:
    """Whether the probe is updated."""
    return iteration >= options.probe_from


def lengths(options: _Common, iteration: int) -> tuple[float, float]:
    """Of the steps of the object and the probe."""
    shrunk = min(1, options.slow_from / iteration)
    return options.object_step * shrunk, options.probe_step * shrunk


def sweep(
    state: State, batches: Batches, do: Verbs, ranks: Ranks, options: EpieOptions | RpieOptions | MpieOptions, iteration: int
) -> DeviceScalar:
    """One sweep over all frames in random order: ePIE (Maiden & Rodenburg, Ultramicroscopy 109, 1256 (2009), eqs. 2-7), and rPIE
    and mPIE (Maiden, Johnson & Li, Optica 4, 736 (2017)).

    Pi_F puts a wave onto the measured modulus, O_j is the patch of frame j. For one frame j, or all frames of a batch, after the other::

        d_j = Pi_F(P O_j) - P O_j                                                     (1)
        O_j <- O_j + alpha P* d_j / ((1 - a) S + a max S),    S = sum_j |P|^2         (2)
        P   <- P + beta O_j* d_j / ((1 - b) |O_j|^2 + b max |O_j|^2)                  (3)

    with sums over the frames of the batch in (2) and their mean in (3). Damping a = b = 1 is ePIE, less is rPIE, and with momentum it
    is mPIE: a sweep has several parts, and after each, with what O has changed by in it::

        v <- eta v + (O - O_before),    O <- O + eta v                                (4)
        O <- sum_r c_r O_r / sum_r c_r,    P <- sum_r n_r P_r / sum_r n_r             (5)

    Several ranks: each sweeps the n_r frames of its own compact region on its own copies O_r, P_r, and (5) merges them with the
    light c_r = sum_j |P|^2 as weight, in parts where regions overlap, at the end of the sweep everywhere. So ranks do not compute
    what one computes: near the border they see what the neighbour found only once in a part. But they converge to it, about as fast.

    Gives the sum behind ``running_error``: the distance of each P O_j from the data, seen on the way.
    """
    O, P = state.object, state.probe
    residual, before = do.zero(), do.copy(O)
    alpha, beta = (state.memory["lengths"][number] for number in (0, 1))
    for part in batches.parts(options.parts):
        for b in part:
            patches = do.cut(O, b)
            A = do.to_detector(do.exit_waves(O, P, b), b)
            residual += do.onto_modulus(A, b, 0)
            d = do.reflect(do.to_sample(A, b), O, P, b, -1, 1)  # (1)
            do.object_step(O, P, d, b, alpha, options.object_damping)  # (2)
            if iteration >= options.probe_from:
                do.probe_step(P, patches, d, b, beta, options.probe_damping)  # (3)
        if options.friction:
            do.momentum(O, before, state.remembered("velocity", lambda: do.sums(O)[0]), options.friction)  # (4)
        merge_overlaps(state, batches, do, ranks)  # (5)
    do.clip_modulus(O, options.object_max)
    merge_copies(state, batches, do, ranks)  # (5)
    return ranks.sum(residual)
