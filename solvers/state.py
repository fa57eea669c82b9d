"""State: the arrays of one rank, and what they start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import SolverError
from ptyplugin.solvers.batches import Batches
from ptyplugin.solvers.ranks import Window
from ptyplugin.solvers.verbs import Complex, Verbs

#: An array, or numbers.
Kept = TypeVar("Kept")
#: RMS of the real part, and of the imaginary part, of object modes beyond the first at the start.
_WEAK_MODE = 0.1


@dataclass(slots=True)
class State:
    """What an algorithm changes. Arrays lie where the verbs compute, but for ``shifts``: see decision record 0002.

    object: (object mode, y, x) complex, the same on all ranks between sweeps
    probe: (probe mode, y, x) complex, the same on all ranks between sweeps
    waves: (frame, wave, y, x) complex, this rank's exit waves; empty for algorithms that keep none
    window: rows and columns of the object that this rank's frames touch
    shifts: (frame, yx) px, float64, how far this rank's frames, then those held out, lie from where the scan said; empty: there
    memory: what an algorithm remembers from sweep to sweep of a stage, by name; empty when the next one begins. Arrays, or tuples of
        numbers and slices
    """

    object: Complex
    probe: Complex
    waves: Complex
    window: Window
    memory: dict[str, Any] = field(default_factory=dict)
    shifts: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))

    def remembered(self, name: str, start: Callable[[], Kept]) -> Kept:
        """What is remembered under ``name``; ``start()`` the first time."""
        if name not in self.memory:
            self.memory[name] = start()
        kept: Kept = self.memory[name]
        return kept


def set_lengths(state: State, lengths: tuple[float, ...], do: Verbs) -> None:
    """Have a sweep find ``lengths`` in ``state.memory["lengths"]`` (number, 1): always the same array, whatever is in it."""
    real = np.empty(0, do.dtype).real.dtype
    do.put(state.remembered("lengths", lambda: do.zeros((len(lengths), 1), real)), np.array(lengths, real)[:, None])


def arrays_of(memory: Mapping[str, Any]) -> dict[str, Complex]:
    """Of what is remembered, the arrays."""
    return {name: kept for name, kept in memory.items() if not isinstance(kept, tuple)}


def start_object(shape: tuple[int, int], dtype: Any, modes: int = 1) -> NDArray[Any]:
    """(object mode, y, x): ones, nothing there yet; the modes beyond the first are weak noise, the same on all ranks.

    Noise, since a mode that is zero, or a multiple of the first, would stay so.
    """
    start = np.ones((modes, *shape), dtype=dtype)
    for number in range(1, modes):
        random = np.random.default_rng(number)
        start[number] = _WEAK_MODE * (random.standard_normal(shape) + 1j * random.standard_normal(shape))
    return start


def window_of(corners: NDArray[np.int32], shape: tuple[int, int]) -> Window:
    """Rows and columns of the object that patches of ``shape`` at ``corners`` (frame, substep, yx) touch."""
    if not len(corners):
        return slice(0, 0), slice(0, 0)
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    return slice(int(low[0]), int(high[0]) + shape[0]), slice(int(low[1]), int(high[1]) + shape[1])


def fill_waves(state: State, batches: Batches, do: Verbs) -> None:
    """Exit waves of all frames from object and probe."""
    waves = len(state.probe) * len(state.object) * batches.frames.corners.shape[1]
    state.waves = do.zeros((batches.frame_count, waves, *state.probe.shape[-2:]), state.probe.dtype)
    for b in batches:
        psi = state.waves[b.index]
        do.advance(psi, psi, state.object, state.probe, b, 0, 0, 1)


def given_probe(probe: NDArray[Any], shape: tuple[int, int], modes: int) -> NDArray[np.complex128]:
    """A probe that somebody gave, (y, x) or (mode, y, x), the strongest mode first; weak modes added, or the weakest left out.

    Raises:
        SolverError: wrong shape, not finite, or zero.
    """
    given = np.asarray(probe, dtype=np.complex128)
    given = given[None] if given.ndim == 2 else given
    if given.ndim != 3 or given.shape[-2:] != tuple(shape):
        raise SolverError(f"the start probe has shape {np.shape(probe)}, but frames have {shape[0]} x {shape[1]} px: crop or pad it.")
    if not np.isfinite(given).all() or not np.any(given):
        raise SolverError("the start probe is zero or not finite: check the file that it comes from.")
    power = (np.abs(given) ** 2).sum(axis=(1, 2))
    given = given[np.argsort(-power, kind="stable")][: np.count_nonzero(power)]
    if len(given) >= modes:
        return given[:modes]
    return np.concatenate([given, weak_modes(given, modes - len(given))])


def weak_modes(probe: NDArray[np.complex128], count: int, power: float = 0.05) -> NDArray[np.complex128]:
    """``count`` modes orthogonal to ``probe`` and each other, each with ``power`` of the first one's.

    They are the first mode times low powers of y and x (as a beam that wobbles): Hermite-like and the same on every machine.
    """
    y, x = (np.arange(size) - size / 2 for size in probe.shape[-2:])
    weight = np.abs(probe[0]) ** 2
    weight /= weight.sum()
    y = (y - (weight.sum(axis=1) * y).sum())[:, None] / probe.shape[-2]
    x = (x - (weight.sum(axis=0) * x).sum())[None, :] / probe.shape[-1]
    orders = [(order - column, column) for order in range(1, count + 2) for column in range(order + 1)]
    basis = list(probe)
    for power_y, power_x in orders[:count]:
        mode = probe[0] * y**power_y * x**power_x
        for other in basis:
            mode = mode - other * (np.vdot(other, mode) / np.vdot(other, other))
        basis.append(mode * np.sqrt(power * np.vdot(probe[0], probe[0]).real / np.vdot(mode, mode).real))
    return np.stack(basis[len(probe) :])


def orthogonal_modes(probe: NDArray[Any]) -> NDArray[Any]:
    """The same incoherent sum by orthogonal modes (mode, y, x), the strongest first (Thibault & Menzel, Nature 494, 68 (2013))."""
    flat = probe.reshape(len(probe), -1).astype(np.complex128)
    _, vectors = np.linalg.eigh(flat.conj() @ flat.T)
    modes: NDArray[Any] = (vectors[:, ::-1].T @ flat).reshape(probe.shape).astype(probe.dtype)
    return modes
