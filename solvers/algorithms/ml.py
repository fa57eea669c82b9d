"""ML: maximum likelihood of all frames at once, by conjugate gradients."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ptyplugin.solvers.batches import Batch, Batches
from ptyplugin.solvers.options import choice, option
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs import Complex, DeviceScalar, Pair, Real, Verbs

_NOISES = ("amplitude", "gaussian", "poisson")
#: Iterations over which the smoothing of gradients fades by e, and the width in px below which it is none.
_FADES, _NARROWEST = 20, 0.2


@dataclass(frozen=True, slots=True)
class MlOptions:
    """Options of ML."""

    noise: Literal["amplitude", "gaussian", "poisson"] = choice(
        "amplitude", _NOISES, "of the moduli, of the counts with variance counts + 1, or of the counts as light has it"
    )
    object_damping: float = option(0.5, 0.01, 1.0, "preconditioner; 1: one scale for the object; less: more where little light falls")
    probe_damping: float = option(0.5, 0.01, 1.0, "preconditioner; 1: one scale for the probe; less: more where little was transmitted")
    smooth_gradient: float = option(0.0, 0.0, 100.0, "px, width over which the object's gradient is averaged at first, and ever less")
    regularise: float = option(0.0, 0.0, 10.0, "weight of the object's squared gradient, in units of the mean light on a pixel")
    probe_from: int = option(1, 1, 1_000_000, "iteration of the stage from which on the probe is updated")
    object_max: float = option(2.0, 0.5, 1e6, "largest modulus of the object; about 1 where nothing absorbs")


def sweep(state: State, batches: Batches, do: Verbs, ranks: Ranks, options: MlOptions, iteration: int) -> DeviceScalar:
    """One step of ML: conjugate gradients over all frames (Thibault & Guizar-Sicairos, New J. Phys. 14, 063004 (2012), section 2).

    Minimises L = sum_j l(m_j^2, I_j) + w sum |grad O|^2 with m_j^2 = |A_j|^2 and A_j = F(P O_j), l as in Verbs.likelihood_gradient::

        chi_j = -F^-1 [dl/dm_j^2 A_j]                                           (1)
        g_O   = sum_j P* chi_j + w Laplacian(O),    g_P = sum_j O_j* chi_j        (2)
        z     = g_O / ((1 - a) S + a max S), g_P / ((1 - b) T + b max T)        (3)
        s    <- z + max(0, <z, g - g_before> / <z_before, g_before>) s          (4)
        L(t): A_j + t F(P s_Oj + s_P O_j) + t^2 F(s_P s_Oj)                     (5)
        O, P <- (O, P) + t s,    t where L(t) is smallest                       (6)

    with S = sum_j |P|^2 and T = sum_j |O_j|^2. (3), the preconditioner, may average g_O over some pixels before and after, at first. (4)
    is that of Polak and Ribiere; it starts again from z where it would lead uphill. Of (5), the likelihood of a few lengths is summed, of
    each exactly; the best of them, improved by a polynomial through its neighbours, is taken, none if none gains. s holds where |O| is
    at its limit. What raises L all the same (rounding, say) is taken back, once in a row, and the search goes on from z.
    (2) and (5) are sums over the frames of all ranks: they compute what one does. Gives the sum behind ``running_error``.
    """
    X = O, P = state.object, state.probe
    kept, before, s = (_remembered(state, do, name) for name in ("kept", "gradient", "direction"))
    line, L, residual, sums = state.remembered("line", do.line), do.zero(), do.zero(), do.line_sums()
    gO, S = do.sums(O)
    gP, T = do.sums(P)
    for b in batches:
        likelihood, distance = _add_gradient((gO, S), (gP, T), X, b, do, options, iteration)  # (1)
        L, residual = L + likelihood, residual + distance
    ranks.sum_canvas(gO, S, state.window)
    L = ranks.sum(L) + do.roughness(gO, S, O, options.regularise)  # (2)
    do.keep_lower(line, L, X, kept, (gO, ranks.sum(gP)), before)
    z = _preconditioned(do.copy(gO), S, do.copy(gP), ranks.sum(T), do, options, iteration)  # (3)
    for direction in (z[0], s[0]):
        do.inward(direction, O, options.object_max)
    do.conjugate(line, s, z, (gO, gP), before)  # (4)
    for b in batches:
        _add_likelihoods(sums, X, s, b, do, options, line)  # (5)
    do.line_roughness(ranks.sum(sums), S, O, s[0], options.regularise, line)
    do.line_step(line, X, kept, s, sums)  # (6)
    do.clip_modulus(O, options.object_max)
    return ranks.sum(residual)


# Waves live in functions of their own: whoever holds some when they are asked for has all frames' waves kept.
def _add_gradient(
    of_object: Pair, of_probe: Pair, X: Pair, b: Batch, do: Verbs, options: MlOptions, iteration: int
) -> tuple[DeviceScalar, DeviceScalar]:
    """Adds what the frames of a batch say of the gradient; gives their likelihood, and their distance from the data."""
    A = do.to_detector(do.exit_waves(*X, b), b)
    numbers = do.likelihood_gradient(A, b, options.noise)
    chi = do.to_sample(A, b)
    do.object_sums(*of_object, chi, X[1], b)
    if iteration >= options.probe_from:
        do.probe_sums(*of_probe, chi, X[0], b)
    return numbers


def _add_likelihoods(sums: Real, X: Pair, s: Pair, b: Batch, do: Verbs, options: MlOptions, line: Real) -> None:
    """Adds what the frames of a batch say of the lengths that are tried."""
    (O, P), A, ddA = X, *(do.to_detector(do.exit_waves(*pair, b), b) for pair in (X, s))
    dA = do.to_detector(do.reflect(do.exit_waves(s[0], P, b), O, s[1], b, 1, 1), b)
    do.line_likelihoods(sums, A, dA, ddA, b, options.noise, line)


def _remembered(state: State, do: Verbs, name: str) -> Pair:
    """What is remembered under ``name`` for object and probe; 0 at first."""
    return (
        state.remembered(f"object {name}", lambda: do.sums(state.object)[0]),
        state.remembered(f"probe {name}", lambda: do.sums(state.probe)[0]),
    )


def _preconditioned(gO: Complex, S: Real, gP: Complex, T: Real, do: Verbs, options: MlOptions, iteration: int) -> Pair:
    """The gradient in units in which steps are about 1, in place."""
    width = options.smooth_gradient * math.exp(-iteration / _FADES)
    wide = width > _NARROWEST
    if wide:
        do.smooth(gO, width)
    do.precondition(gO, S, options.object_damping)
    if wide:
        do.smooth(gO, width)
    do.precondition(gP, T, options.probe_damping)
    return gO, gP
