"""From the state to the Reconstruction, and how far to trust it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Geometry, Placement, Reconstruction, Scan, SolverError
from ptyplugin.solvers.start import median_step
from ptyplugin.solvers.state import State, orthogonal_modes
from ptyplugin.solvers.way import Walk

#: A result with a larger error explains the frames no better than darkness does.
_WORST_ERROR = 1.0


def reconstruction_of(
    state: State, error: float, scan: Scan, placement: Placement, geometry: Geometry, way: Walk, said: dict[str, Any]
) -> Reconstruction:
    """The result, with its own copies of what the state holds.

    error: as model_error gives it; said: for the provenance

    Raises:
        SolverError: it is none: not finite, or worse than darkness.
    """
    probe = orthogonal_modes(state.probe)
    if not (np.isfinite(state.object).all() and np.isfinite(probe).all() and error <= _WORST_ERROR):
        raise SolverError(
            f"the reconstruction diverged: its error is {error:.3g} (0 is perfect, 1 is darkness). Check the geometry, the positions "
            "and the orientation, or use smaller steps."
        )
    good = way.frames.good if geometry.near_field else np.fft.fftshift(way.frames.good)
    return Reconstruction(
        object=state.object.copy(),
        probe=probe,
        geometry=geometry,
        positions_m=scan.positions_m.mean(axis=1),
        positions_px=(placement.corners + placement.rests.astype(np.float64)).mean(axis=1),
        mask=(~good).astype(np.uint8),
        progress=list(way.progress),
        quality=_quality(probe, placement, error),
        provenance=said | {"numpy": np.__version__, "scipy": version("scipy"), "seconds": way.progress[-1].seconds},
    )


def _quality(probe: NDArray[Any], placement: Placement, error: float) -> dict[str, float]:
    """Numbers that tell whether to trust the image.

    overlap: 1 - step / diameter, of the disc with the probe's second moment, if there is more than one place; coherent_share: power of
    the strongest mode
    """
    power = (np.abs(probe) ** 2).sum(axis=0)
    y, x = np.indices(power.shape)
    mean = [float((power * axis).sum() / power.sum()) for axis in (y, x)]
    diameter = 2 * float(np.sqrt(2 * (power * ((y - mean[0]) ** 2 + (x - mean[1]) ** 2)).sum() / power.sum()))
    places = placement.corners.mean(axis=1)
    share = float((np.abs(probe[0]) ** 2).sum() / power.sum())
    known = {"error": error, "frames": float(len(places)), "probe_diameter_px": diameter, "coherent_share": share}
    if np.ptp(places, axis=0).any():
        step = median_step(places)
        known |= {"step_px": step, "overlap": 1 - step / diameter}
    return known
