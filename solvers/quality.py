"""Numbers that tell how far to trust an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import ErrorName, Geometry, Placement
from ptyplugin.solvers.noise import expected_errors
from ptyplugin.solvers.start import median_step
from ptyplugin.solvers.state import State
from ptyplugin.solvers.way import Walk, light_of

#: Part of a frame's side, at either end of it, that is its border.
_BORDER = 1 / 16
#: Share of the strongest light on the object: more is well lit, and between the other two lies its border.
_WELL_LIT, _RIM = 0.3, (0.001, 0.05)


def quality_of(
    state: State, probe: NDArray[Any], errors: dict[ErrorName, float], placement: Placement, geometry: Geometry, way: Walk
) -> dict[str, float]:
    """The numbers by name (docs/reference/result-file.md says what each is). All ranks call it together.

    probe: (mode, y, x), orthogonal modes, the strongest first; errors: as model_errors gives them
    """
    known = _errors(errors, way) | {"frames": float(len(placement.corners)), "probe_power": way.power}
    known |= expected_errors(state, way) | {"good_share": float(way.frames.good.mean())} | _of_probe(probe, geometry)
    known |= {"object_at_border": _at_border(state, way)}
    places = placement.corners.mean(axis=1)
    if np.ptp(places, axis=0).any():
        step = median_step(places)
        known |= {"step_px": step, "overlap": 1 - step / known["probe_diameter_px"]}
    return known


def _errors(errors: dict[ErrorName, float], way: Walk) -> dict[str, float]:
    if "held_out_error" not in errors:
        return {"error": errors["error"]}
    held_out = errors["held_out_error"]
    fitted = errors["error"] + (errors["error"] - held_out) * way.held_out_counts / way.counts
    unseen = way.ranks.sum(np.array([0 if way.held_out is None else len(way.held_out)], dtype=np.float64))
    return {"error": errors["error"], "fitted_error": fitted, "held_out_error": held_out, "held_out_frames": float(unseen[0])}


def _of_probe(probe: NDArray[Any], geometry: Geometry) -> dict[str, float]:
    """Diameter of the disc with the probe's second moment; shares of its power in the first mode, and, far field, at the frame's border."""
    power = (np.abs(probe) ** 2).sum(axis=0, dtype=np.float64)
    y, x = np.indices(power.shape)
    mean = [float((power * axis).sum() / power.sum()) for axis in (y, x)]
    diameter = 2 * float(np.sqrt(2 * (power * ((y - mean[0]) ** 2 + (x - mean[1]) ** 2)).sum() / power.sum()))
    known = {"probe_diameter_px": diameter, "coherent_share": float((np.abs(probe[0]) ** 2).sum(dtype=np.float64) / power.sum())}
    if not geometry.near_field:
        rows, columns = (max(round(size * _BORDER), 1) for size in power.shape)
        known["probe_at_border"] = 1 - float(power[rows:-rows, columns:-columns].sum() / power.sum())
    return known


def _at_border(state: State, way: Walk) -> float:
    """How strong the object is where hardly any light falls (99th percentile of the modulus), in medians of where there is much."""
    light = light_of(state, way)
    modulus = np.sqrt((np.abs(way.verbs.host(state.object)) ** 2).sum(axis=0))
    well = modulus[light > _WELL_LIT * light.max()]
    low, high = (share * light.max() for share in _RIM)
    rim = modulus[(light > low) & (light < high)]
    return float(np.percentile(rim, 99) / np.median(well)) if rim.size else 1.0
