"""From the state to the Reconstruction, and how far to trust it."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np

from ptyplugin.model import ErrorName, Geometry, Placement, Recipe, Reconstruction, Scan, Snapshot, SolverError
from ptyplugin.solvers.detector_model import intensities_of, map_of_background
from ptyplugin.solvers.measured import Measured
from ptyplugin.solvers.modes import probe_of
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


def recipe_done(recipe: Recipe, iterations: int) -> str:
    """The part of a recipe that so many iterations are."""
    begun, left = [], iterations
    for stage in recipe.stages:
        if left:
            begun.append(replace(stage, iterations=min(left, stage.iterations)))
            left -= begun[-1].iterations
    return str(Recipe(tuple(begun)))


def snapshot_of(state: State, way: Walk, measured: Measured) -> Snapshot:
    """The image as it is now; arrays are copies. ``errors`` are the newest of each name since the last frames came."""
    last, pixel = way.progress[-1], measured.manner.geometry.object_pixel_m
    origin = measured.origin_px * np.asarray(pixel)
    return Snapshot(
        job=way.job_key,
        stage=last.stage,
        iteration=last.iteration,
        iterations=last.iterations,
        errors={name: value for event in way.progress[way.since :] for name, value in event.errors.items()},
        frames=len(measured.scan),
        taken_s=time.time(),
        object=np.array(way.verbs.host(state.object[:1])[0], dtype=np.complex64),
        probe=probe_of(state, way).astype(np.complex64),
        pixel_m=pixel,
        origin_m=(float(origin[0]), float(origin[1])),
    )


def _of_last_stage(way: Walk) -> int:
    """How many of the iterations so far belong to the stage that was done last, and saw all frames."""
    return len(way.progress) - max(way.begun_after, way.since)
