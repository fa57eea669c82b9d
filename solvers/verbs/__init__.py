"""Verbs: the vocabulary that algorithms are written in. One equation each; the table is decision record 0002.

Shapes: O (object mode, Y, X); P (probe mode, y, x); psi, w, A (frame, wave, y, x), where wave runs over probe mode, object mode and
sub-step, which add incoherently (the sub-step is its last index); O_j = the patch of frame j; F = ``to_detector``; c = number of pixels in
the far field, 1 in the near field. What a verb calls modulus is m, m^2 = s_j sum_m |A_jm|^2 / c + B: s_j is the intensity of the beam in
frame j (``b.intensities``), B the background (``b.background``); 1 and 0 where there are none.
"""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Literal, Protocol, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch, Batches, RankFrames

#: Arrays lie where the verbs compute, which need not be where NumPy does: ask ``host`` for what is in them.
Complex = NDArray[Any]
Real = NDArray[Any]
Noise = Literal["gaussian", "poisson"]
#: Of all frames at once: of moduli, or of counts with noise of one kind or the other.
Likelihood = Literal["amplitude", "gaussian", "poisson"]
#: An object and a probe, or two arrays like them.
Pair = tuple[Complex, Complex]


class DeviceScalar:
    """A number that stays where it was computed. Algorithms may add it and sum it over ranks, never look at it.

    So a sweep never waits for a device. The runner looks at it between sweeps with ``read()``.
    """

    __slots__ = ("_array",)

    def __init__(self, array: NDArray[np.float64]) -> None:
        self._array = array

    @property
    def array(self) -> NDArray[np.float64]:
        """The number as an array of no dimension, for sums over ranks in place."""
        return self._array

    def __add__(self, other: DeviceScalar) -> DeviceScalar:
        return DeviceScalar(np.asarray(self.array + other.array))

    def read(self) -> float:
        """The number, on the host. For the runner only."""
        return self.array.item()

    def _refuse(self) -> Any:
        raise TypeError("a DeviceScalar is not read inside a sweep: return it, and the runner reads it between sweeps")

    def __float__(self) -> float:
        return float(self._refuse())

    def __bool__(self) -> bool:
        return bool(self._refuse())

    def __index__(self) -> int:
        return int(self._refuse())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self._refuse())


class Verbs(Protocol):
    """What every implementation can do. ``dtype`` is complex64 or complex128; ``near_field``: else far field.

    A step is as long as a number says, or as one in an array (1,), which may be another one when a sweep is repeated.

    An implementation may put off what it is asked for. Verbs see to it themselves; whoever else reads an array calls ``finish`` first.
    """

    dtype: np.dtype[Any]
    near_field: bool

    def finish(self) -> None:
        """Do what has been put off."""
        ...

    def use_less_memory(self) -> bool:
        """Make do with less of the device's memory for frames that are held from now on; False: there is nothing to save."""
        ...

    def batch_frames(self, shape: tuple[int, int], waves: int) -> int:
        """How many frames of ``shape`` with so many waves each a batch should hold."""
        ...

    def hold(self, frames: RankFrames) -> RankFrames:
        """The frames, ready to be worked on: asked for once, when nobody else needs their counts on the host any more; and again, with
        these, when there are more of them. No sweep of before is repeated then.

        What is made of them by ``dataclasses.replace`` with other corners, rests, background or intensities has the same counts.
        """
        ...

    def repeat(self, key: Hashable, batches: Batches, sweep: Callable[[], DeviceScalar]) -> DeviceScalar:
        """sweep(), or all that it did for the same ``key`` once more

        key: all that the sweep depends on, but for what is in arrays: those that it has worked on, the order of ``batches``, and the
            corners, rests, background and intensities of their frames
        """
        ...

    def array(self, host: NDArray[Any]) -> Complex:
        """X = host, where verbs compute; may be ``host`` itself"""
        ...

    def host(self, X: Complex) -> NDArray[Any]:
        """X, on the host, after ``finish``; may be X itself: not to be written to"""
        ...

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Complex:
        """X = 0"""
        ...

    def longer(self, X: Complex, count: int) -> Complex:
        """X, which is used up, with ``count`` rows along its first axis, the new ones 0; between sweeps"""
        ...

    def put(self, X: Complex, value: Complex | complex) -> None:
        """X <- value, in place: a number, or an array of the same shape, on the host or not"""
        ...

    def all_finite(self, *X: Complex) -> bool:
        """Whether no number in X is infinite or none at all. Between sweeps."""
        ...

    def roll(self, X: Complex, shift: tuple[int, int]) -> None:
        """X <- X moved by ``shift`` (yx) px; what leaves it on one side comes in on the other; in place. Between sweeps."""
        ...

    def zero(self) -> DeviceScalar:
        """0, to add scalars to."""
        ...

    def exit_waves(self, O: Complex, P: Complex, b: Batch) -> Complex:
        """w_j = P O_j"""
        ...

    def cut(self, O: Complex, b: Batch) -> Complex:
        """O_j, copied: (frame, substep, object mode, y, x)"""
        ...

    def reflect(self, psi: Complex, O: Complex, P: Complex, b: Batch, overlap: float, wave: float) -> Complex:
        """w_j = overlap P O_j + wave psi_j. May use up psi, if it is what to_sample gave."""
        ...

    def to_detector(self, w: Complex, b: Batch) -> Complex:
        """A = F w: far field, FFT without scale; near field, Fresnel, and moved back by the rest. May reuse the memory of w."""
        ...

    def to_sample(self, A: Complex, b: Batch) -> Complex:
        """w = F^-1 A. May reuse the memory of A."""
        ...

    def onto_modulus(self, A: Complex, b: Batch, slack: float) -> DeviceScalar:
        """A <- slack A + (1 - slack) A sqrt(I) / modulus where good, in place; gives what modulus_residual gives before it"""
        ...

    def modulus_residual(self, A: Complex, b: Batch) -> DeviceScalar:
        """sum over good pixels of (sqrt(I) - modulus)^2"""
        ...

    def model_counts(self, A: Complex, b: Batch) -> Real:
        """(frame, y, x) modulus^2: what the model says that is counted; on the host, read after ``finish``"""
        ...

    def advance(self, psi: Complex, w: Complex, O: Complex, P: Complex, b: Batch, wave: float, data: float, overlap: float) -> None:
        """psi_j <- wave psi_j + data w_j + overlap P O_j, in place"""
        ...

    def sums(self, X: Complex) -> tuple[Complex, Real]:
        """num = 0 like X, den = 0 like one mode of X"""
        ...

    def object_sums(self, num: Complex, den: Real, psi: Complex, P: Complex, b: Batch) -> None:
        """num[corner_j] += sum_m P_m* psi_jm;  den[corner_j] += sum_m |P_m|^2"""
        ...

    def probe_sums(self, num: Complex, den: Real, psi: Complex, O: Complex, b: Batch) -> None:
        """num_m += sum_j O_j* psi_jm;  den += sum_j |O_j|^2"""
        ...

    def coverage_sums(self, den: Real, P: Complex, b: Batch) -> None:
        """den[corner_j] += sum_m |P_m|^2"""
        ...

    def weigh(self, num: Complex, den: Real, X: Complex, weight: Real | SupportsIndex) -> None:
        """den = weight, but nowhere below a millionth of its largest;  num = den X: for means over copies of X"""
        ...

    def quotient(self, X: Complex, num: Complex, den: Real, inertia: float) -> None:
        """X <- (num + i X) / (den + i), i = inertia max(den), in place; X stays where nothing was measured"""
        ...

    def object_step(self, O: Complex, P: Complex, w: Complex, b: Batch, step: float | Real, damping: float) -> None:
        """O_j += step sum_m P_m* w_jm / ((1 - damping) S + damping max S), in place;  S[corner_j] = sum_jm |P_m|^2 over the batch"""
        ...

    def probe_step(self, P: Complex, patches: Complex, w: Complex, b: Batch, step: float | Real, damping: float) -> None:
        """P_m += step O_j* w_jm / ((1 - damping) |O_j|^2 + damping max |O_j|^2), in place, mean over the frames of the batch"""
        ...

    def likelihood_step(self, A: Complex, b: Batch, noise: Noise) -> DeviceScalar:
        """A <- f A where good, 0 elsewhere, in place; gives what modulus_residual gives before it

        gaussian: f = sqrt(I) / modulus - 1; poisson: f = (I / modulus^2 - 1) / 2, but never more than gaussian's
        """
        ...

    def background_sums(self, num: Real, den: Real, A: Complex, b: Batch, floor: float) -> None:
        """num += sum_j (I - modulus^2) / v;  den += sum_j 1 / v, where good;  v = modulus^2 + floor"""
        ...

    def intensity_sums(self, A: Complex, b: Batch, floor: float) -> NDArray[np.float64]:
        """(frame, 2), on the host: sum over good pixels of (I - modulus^2) a / v and of a^2 / v

        a = modulus^2 - B, v = modulus^2 + floor
        """
        ...

    def precondition(self, num: Complex, den: Real, damping: float) -> None:
        """num <- num / ((1 - damping) den + damping max den), in place"""
        ...

    def step_sums(self, w: Complex, u: Complex, v: Complex, b: Batch) -> Real:
        """sum_j of <u_j, u_j>, <v_j, v_j>, Re <u_j, v_j>, Re <u_j, w_j>, Re <v_j, w_j>: (1, 5)"""
        ...

    def add_steps(self, O: Complex, dO: Complex, P: Complex, dP: Complex, sums: Real, object_share: float, probe_share: float) -> None:
        """O <- O + object_share alpha dO, P <- P + probe_share beta dP, in place

        alpha, beta >= 0 from step_sums: sum_j |w_j - alpha u_j - beta v_j|^2 is smallest for this alpha / beta, which is that of the
        best steps of each alone
        """
        ...

    def likelihood_gradient(self, A: Complex, b: Batch, noise: Likelihood) -> tuple[DeviceScalar, DeviceScalar]:
        """A <- -dl/dr A where good, 0 elsewhere, in place; gives sum l(r, I) before it, and what modulus_residual gives

        r = s_j sum_n |A_n|^2 / c + background; l is (sqrt(r) - sqrt(I))^2 (amplitude), (r - I)^2 / (4 (I + 1)) (gaussian) or
        (r - I + I log(I / r)) / 2 (poisson, with a thousandth of a count more in r): alike near the solution
        """
        ...

    def line(self) -> Real:
        """What a line search has to remember: the length of the last step, the likelihood before it, numbers of its direction"""
        ...

    def line_sums(self) -> Real:
        """0, for what line_likelihoods adds up"""
        ...

    def line_likelihoods(self, sums: Real, A: Complex, dA: Complex, ddA: Complex, b: Batch, noise: Likelihood, line: Real) -> None:
        """sums += sum l(r(0), I), and sum l(r(t), I) - l(r(0), I) for each length t that is tried; r(t) from A + t dA + t^2 ddA"""
        ...

    def keep_lower(self, line: Real, likelihood: DeviceScalar, X: Pair, kept: Pair, gradient: Pair, kept_gradient: Pair) -> None:
        """X <- kept, gradient <- kept_gradient, in place, if ``likelihood`` is higher than before the last step, but once in a row only"""
        ...

    def conjugate(self, line: Real, direction: Pair, steepest: Pair, gradient: Pair, kept_gradient: Pair) -> None:
        """direction <- steepest + b direction, kept_gradient <- gradient, in place

        b = max(0, Re <steepest, gradient - kept_gradient> / its last Re <steepest, gradient>), 0 if that led uphill
        """
        ...

    def inward(self, s: Complex, O: Complex, largest: float) -> None:
        """s <- s without what makes O longer where |O| is ``largest``, but for a thousandth, or more; in place"""
        ...

    def line_step(self, line: Real, X: Pair, kept: Pair, direction: Pair, sums: Real) -> None:
        """kept <- X, X <- X + t direction, in place; t from line_likelihoods: where most is gained, 0 if nothing is gained anywhere"""
        ...

    def smooth(self, X: Complex, width_px: float) -> None:
        """X <- X convolved with a Gaussian of this standard deviation, in place"""
        ...

    def roughness(self, num: Complex, den: Real, O: Complex, weight: float) -> DeviceScalar:
        """num += v Laplacian O;  gives v sum |grad O|^2, differences of neighbours, v = weight mean(den)"""
        ...

    def line_roughness(self, sums: Real, den: Real, O: Complex, dO: Complex, weight: float, line: Real) -> None:
        """sums += what roughness gives for O, and for O + t dO less that for O, for each length t that is tried"""
        ...

    def copy(self, X: Complex) -> Complex:
        """X, as it is now"""
        ...

    def momentum(self, X: Complex, before: Complex, velocity: Complex, friction: float) -> None:
        """velocity <- friction velocity + (X - before);  X <- X + friction velocity;  before <- X, in place"""
        ...

    def spread(self, num: Complex, psi: Complex, weights: NDArray[np.complex128], P: Complex, b: Batch) -> None:
        """num[corner_j] += weights_j sum_m P_m* psi_jm"""
        ...

    def gather(self, psi: Complex, O: Complex, P: Complex, b: Batch) -> NDArray[np.complex128]:
        """(frame,) sum of psi_j* P O_j, on the host"""
        ...

    def frame_powers(self, psi: Complex, b: Batch) -> NDArray[np.float64]:
        """(frame,) sum of |psi_j|^2, on the host"""
        ...

    def frame_phases(self, psi: Complex, phases: NDArray[np.complex128], b: Batch) -> None:
        """psi_j <- phases_j psi_j, in place"""
        ...

    def derivatives(self, O: Complex) -> tuple[Complex, Complex]:
        """dO / dy, dO / dx per px, by central differences"""
        ...

    def position_gradient(self, A: Complex, Ay: Complex, Ax: Complex, b: Batch) -> NDArray[np.float64]:
        """(frame, 6) sums over good pixels of y y, x x, y x, y r, x r, r r, read after ``finish``

        r = sqrt(I) - m, m^2 = sum_n |A_n|^2 / c; y = dm / dy = sum_n Re A_n* Ay_n / (c m) when the frame moves, with Ay = F P dO_j / dy
        """
        ...

    def frame_residuals(self, A: Complex, b: Batch) -> NDArray[np.float64]:
        """(frame,) what modulus_residual sums up, read after ``finish``"""
        ...

    def correlate(self, psi: Complex, O: Complex, P: Complex, b: Batch, reach: float) -> NDArray[np.float64]:
        """(frame, yx) px, on the host: the shift r, at most ``reach``, for which sum |psi_j - P O_j(. + r)|^2 is smallest"""
        ...

    def move_waves(self, psi: Complex, shifts: Real, b: Batch) -> None:
        """psi_jn <- psi_jn moved by shifts_jn (frame, wave, yx) px, in place"""
        ...

    def clip_modulus(self, X: Complex, largest: float) -> None:
        """X <- X min(1, largest / |X|), in place"""
        ...

    def fix_power(self, P: Complex, O: Complex, power: float) -> None:
        """P <- s P, O <- O / s with s such that sum |P|^2 = power, in place: P O stays"""
        ...
