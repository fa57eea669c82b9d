"""LSQML: least-squares steps towards the maximum likelihood."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ptyplugin.solvers.batches import Batches
from ptyplugin.solvers.merging import merge_copies
from ptyplugin.solvers.options import choice, option
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs import DeviceScalar, Verbs


@dataclass(frozen=True, slots=True)
class LsqmlOptions:
    """Options of LSQML."""

    noise: Literal["gaussian", "poisson"] = choice("gaussian", ("gaussian", "poisson"), "of the moduli, or of the counts as light has it")
    batches: Literal["sparse", "compact"] = choice("sparse", ("sparse", "compact"), "frames that step together: any, or neighbours")
    batch: int = option(0, 0, 10_000, "frames of each rank that step together; 0: 20, or more if that makes over 15 batches")
    momentum: float = option(0.7, 0.0, 0.98, "share of its velocity that object and probe keep from sweep to sweep")
    object_step: float = option(1.0, 0.0, 1.0, "share of the best length that the object steps")
    probe_step: float = option(1.0, 0.0, 1.0, "share of the best length that the probe steps")
    object_damping: float = option(0.5, 0.01, 1.0, "1: step along the gradient; less: more where little light falls")
    probe_damping: float = option(0.5, 0.01, 1.0, "1: step along the gradient; less: more where little was transmitted")
    probe_from: int = option(1, 1, 1_000_000, "iteration of the stage from which on the probe is updated")
    object_max: float = option(2.0, 0.5, 1e6, "largest modulus of the object; about 1 where nothing absorbs")


def phase(options: LsqmlOptions, iteration: int) -> bool:
    """Whether the probe is updated."""
    return iteration >= options.probe_from


def sweep(state: State, batches: Batches, do: Verbs, ranks: Ranks, options: LsqmlOptions, iteration: int) -> DeviceScalar:
    """One sweep of LSQML over all frames (Odstrcil, Menzel & Guizar-Sicairos, Opt. Express 26, 3108 (2018)).

    For one batch of frames after the other, with A_j = F(P O_j), m_j^2 = |A_j|^2 and O_j the patch of frame j::

        chi_j  = F^-1 [(sqrt(I_j) / m_j - 1) A_j]                               (1)
        dO     = sum_j P* chi_j / ((1 - a) S + a max S),      S = sum_j |P|^2     (2)
        dP     = sum_j O_j* chi_j / ((1 - b) T + b max T),    T = sum_j |O_j|^2   (3)
        alpha, beta: sum_j |chi_j - alpha P dO_j - beta O_j dP|^2 smallest      (4)
        O <- O + alpha dO,    P <- P + beta dP                                  (5)

    chi (1) is the Gaussian likelihood's; the Poisson one's is (I / m^2 - 1) A / 2, but nowhere beyond the former, which is its minimum
    in every pixel. (4) is one system for all frames of a batch: a system for each, averaged, gave the same images. It is solved along
    the line on which the parts have the ratio that is best for each alone: solved for both at once the probe is hardly moved while the
    object explains its faults. After the sweep momentum, with what X = O and X = P have changed by in it, and a border that cannot run
    away, since |O| is limited::

        v <- eta v + (X - X_before),    X <- X + eta v                          (6)

    Several ranks: (3) and (4) are sums over all ranks, batches hold frames of all; each has its copy of O for the frames of its own
    compact region, and the copies are merged, weighted with their light S, after the sweep (7). So ranks do not compute what one does,
    but converge to it. Gives the sum behind ``running_error``: the distance of each P O_j from the data, seen on the way.
    """
    O, P = state.object, state.probe
    residual, object_before, probe_before = do.zero(), do.copy(O), do.copy(P)
    probe_step = options.probe_step if iteration >= options.probe_from else 0.0
    for b in batches:
        A = do.to_detector(do.exit_waves(O, P, b), b)
        residual += do.likelihood_step(A, b, options.noise)
        chi = do.to_sample(A, b)  # (1)
        dO, light = do.sums(O)
        dP, transmission = do.sums(P)
        do.object_sums(dO, light, chi, P, b)
        do.probe_sums(dP, transmission, chi, O, b)
        do.precondition(dO, light, options.object_damping)  # (2)
        do.precondition(ranks.sum(dP), ranks.sum(transmission), options.probe_damping)  # (3)
        sums = do.step_sums(chi, do.exit_waves(dO, P, b), do.exit_waves(O, dP, b), b)
        do.add_steps(O, dO, P, dP, ranks.sum(sums), options.object_step, probe_step)  # (4), (5)
    do.clip_modulus(O, options.object_max)
    merge_copies(state, batches, do, ranks)  # (7)
    if options.momentum:
        do.momentum(O, object_before, state.remembered("object velocity", lambda: do.sums(O)[0]), options.momentum)  # (6)
        do.momentum(P, probe_before, state.remembered("probe velocity", lambda: do.sums(P)[0]), options.momentum)  # (6)
    return ranks.sum(residual)
