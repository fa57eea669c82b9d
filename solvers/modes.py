"""Modes of a result: orthogonal, the strongest first, and the share of each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Reconstruction
from ptyplugin.solvers.algorithms import refinements_of
from ptyplugin.solvers.state import State, orthogonal_modes
from ptyplugin.solvers.way import Walk, light_of


def with_modes(made: Reconstruction, state: State, way: Walk) -> Reconstruction:
    """The result with its modes in order; the frames do not see the difference. All ranks call it together.

    quality, where there are several modes: ``probe_mode_1_share``, ... of the probe's power; ``object_mode_1_share``, ... of the light
    behind the sample: sum over pixels of |O_k|^2 times the light that fell there
    """
    probe = probe_of(state, way)
    shares = _shares("probe", (np.abs(probe) ** 2).sum(axis=(1, 2), dtype=np.float64))
    ordered = way.verbs.host(state.object).copy()
    if len(ordered) > 1:
        light = light_of(state, way)
        ordered = orthogonal_object(ordered, light)
        shares |= _shares("object", (np.abs(ordered) ** 2 * light).sum(axis=(1, 2), dtype=np.float64))
    return replace(made, object=ordered, probe=probe, quality=made.quality | shares)


def probe_of(state: State, way: Walk) -> NDArray[Any]:
    """(probe mode, y, x): orthogonal modes, the strongest first; the modes that were given if every stage so far has kept them."""
    if all(refinements_of(stage).probe == "fixed" for stage in way.stages[: way.begun or None]):
        return way.verbs.host(state.probe).copy()
    return orthogonal_modes(way.verbs.host(state.probe))


def orthogonal_object(modes: NDArray[Any], light: NDArray[Any]) -> NDArray[Any]:
    """The same incoherent sum by modes (object mode, y, x) that are orthogonal where there is light (y, x), the strongest first.

    Each is turned such that the mode that contributes most to it keeps its phase.
    """
    lit = modes * np.sqrt(light)
    gram = np.array([[np.vdot(one, other) for other in lit] for one in lit], dtype=np.complex128)
    vectors = np.linalg.eigh(gram)[1][:, ::-1]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(len(modes))]
    return np.asarray(np.tensordot((vectors * (np.conj(largest) / np.abs(largest))).T, modes, axes=1), dtype=modes.dtype)


def _shares(what: str, powers: NDArray[np.float64]) -> dict[str, float]:
    if len(powers) == 1:
        return {}
    return {f"{what}_mode_{number}_share": float(power / powers.sum()) for number, power in enumerate(powers, start=1)}
