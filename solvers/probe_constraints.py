"""What is known of the probe, enforced after each sweep: it ends at the edge of a disc, and it stands in the middle of its frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.state import State, arrays_of
from ptyplugin.solvers.way import Walk

#: The probe is moved when its centre of mass is further than this from the middle, px: at half a pixel it would go to and fro.
_TOLERATED_PX = 1.0
#: What merges of ranks' copies remember of the light's place.
_OF_PLACES = ("light", "overlaps")


def cut_to_disc(state: State, way: Walk, radius: float) -> None:
    """P <- 0 outside of a disc around its centre of mass; then the power of P is that of the mean frame again, P O as it was.

    radius: share of half the frame's side
    """
    probe = way.verbs.host(state.probe).copy()
    at = centre_of_mass(probe)
    y, x = ((np.arange(size) - middle) / (radius * size / 2) for size, middle in zip(probe.shape[-2:], at, strict=True))
    probe[:, y[:, None] ** 2 + x[None, :] ** 2 > 1] = 0
    way.verbs.put(state.probe, probe)
    way.verbs.fix_power(state.probe, state.object, way.power)


def centre_probe(state: State, way: Walk) -> None:
    """Move probe, object, exit waves and what an algorithm remembers of them by whole pixels until the probe stands in the middle.

    For the far field, whose modulus does not see it: all P O_j move as one, but for what goes around the frame's edge, where the probe is
    dark. The object's edges go around as well.
    """
    off = off_middle(way.verbs.host(state.probe))
    if max(map(abs, off)) <= _TOLERATED_PX:
        return
    shift = -round(off[0]), -round(off[1])
    shapes = state.probe.shape[-2:], state.object.shape[-2:]
    for array in (*arrays_of(state.memory).values(), state.object, state.probe, state.waves):
        if array.size and array.dtype.kind == "c" and array.shape[-2:] in shapes:
            way.verbs.roll(array, shift)
    for name in _OF_PLACES:
        state.memory.pop(name, None)


def off_middle(probe: NDArray[Any]) -> tuple[float, float]:
    """(y, x) px from the middle of the frame to the centre of mass of a probe (mode, y, x), on a ring of as many pixels.

    On a ring it moves by as much as the probe does, although dim edges go around.
    """
    power = (np.abs(probe) ** 2).sum(axis=0, dtype=np.float64)
    off = []
    for axis, size in enumerate(power.shape):
        angles = 2 * np.pi * (np.arange(size) - size // 2) / size
        off.append(float(np.angle((power.sum(axis=1 - axis) * np.exp(1j * angles)).sum())) * size / (2 * np.pi))
    return off[0], off[1]


def centre_of_mass(probe: NDArray[Any]) -> tuple[float, float]:
    """(y, x) px of the power of all modes of a probe (mode, y, x)."""
    power = (np.abs(probe) ** 2).sum(axis=0, dtype=np.float64)
    y, x = (float((power.sum(axis=1 - axis) * np.arange(power.shape[axis])).sum() / power.sum()) for axis in (0, 1))
    return y, x
