"""From the state to the Reconstruction, and how far to trust it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from ptyplugin.model import ErrorName, Geometry, Placement, Reconstruction, Scan, SolverError
from ptyplugin.solvers.detector_model import intensities_of, map_of_background
from ptyplugin.solvers.quality import quality_of
from ptyplugin.solvers.state import State, orthogonal_modes
from ptyplugin.solvers.verdict import judge
from ptyplugin.solvers.way import Walk

#: A result with a larger error explains the frames no better than darkness does.
_WORST_ERROR = 1.0


def reconstruction_of(
    state: State, errors: dict[ErrorName, float], scan: Scan, placement: Placement, geometry: Geometry, way: Walk, said: dict[str, Any]
) -> Reconstruction:
    """The result, with its own copies of what the state holds. All ranks call it together.

    errors: as model_errors gives them; said: for the provenance

    Raises:
        SolverError: it is none: not finite, or worse than darkness.
    """
    image, probe, error = way.verbs.host(state.object).copy(), orthogonal_modes(way.verbs.host(state.probe)), errors["error"]
    what = " and ".join(name for name, array in (("object", image), ("probe", probe)) if not np.isfinite(array).all())
    if what or not error <= _WORST_ERROR:
        how = f"its {what} has pixels that are no numbers" if what else f"its error is {error:.3g} (0 is perfect, 1 is darkness)"
        raise SolverError(
            f"the reconstruction diverged: {how}. Check the geometry, the positions and the orientation, or use smaller steps."
        )
    quality = quality_of(state, probe, errors, placement, geometry, way)
    good = way.frames.good if geometry.near_field else np.fft.fftshift(way.frames.good)
    return Reconstruction(
        object=image,
        probe=probe,
        geometry=geometry,
        positions_m=scan.positions_m.mean(axis=1),
        positions_px=(placement.corners + placement.rests.astype(np.float64)).mean(axis=1),
        mask=(~good).astype(np.uint8),
        progress=list(way.progress),
        quality=quality,
        background=map_of_background(way),
        intensities=intensities_of(way),
        verdict=judge(quality, way.progress, _of_last_stage(way), way.notes),
        provenance=said | {"numpy": np.__version__, "scipy": version("scipy"), "seconds": way.progress[-1].seconds},
    )


def _of_last_stage(way: Walk) -> int:
    """How many of the iterations so far belong to the stage that was done last."""
    return len(way.progress) - sum(stage.iterations for stage in way.stages[: way.begun - 1])
