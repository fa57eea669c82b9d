"""Beginning: from prepared frames to the state of a reconstruction, and the way that lies before it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Geometry, Placement, Recipe, RecipeError, Snapshot, SolverError
from ptyplugin.solvers.algorithms import refinements_of
from ptyplugin.solvers.batches import RankFrames
from ptyplugin.solvers.canvas import on_canvas
from ptyplugin.solvers.measured import Measured
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.state import State, given_probe, start_object, window_of
from ptyplugin.solvers.verbs import Verbs
from ptyplugin.solvers.verbs.choice import VerbsChoice
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs
from ptyplugin.solvers.way import Walk

#: Pixels of the object around all frames.
_MARGIN_PX = 4
#: Sizes of pixels that differ by no more than this share are the same.
_SAME_PIXEL = 1e-6


def check_probe(recipe: Recipe, start: NDArray[Any] | None, probe_modes: int, geometry: Geometry) -> None:
    """Refuse to keep a probe that is not known, and to centre one where the detector sees it move.

    Raises:
        RecipeError: the recipe asks for that.
    """
    refinements = [refinements_of(stage) for stage in recipe.stages]
    given = 0 if start is None else 1 if np.ndim(start) == 2 else len(start)
    if given < probe_modes and all(asked.probe == "fixed" for asked in refinements):
        raise RecipeError(
            f'the recipe keeps the probe in all its stages (probe="fixed"), but of its {probe_modes} mode(s) {given} are known: '
            "give a start probe with as many, or free it in a stage."
        )
    if geometry.near_field and any(asked.centre_probe for asked in refinements):
        raise RecipeError("in the near field the detector sees where the probe stands: leave out centre_probe.")


def lattice_of(start: Snapshot, geometry: Geometry) -> NDArray[np.float64]:
    """(y, x) px of positions, of the first pixel of the object that is begun with.

    Raises:
        SolverError: its pixels have another size.
    """
    pixel = np.asarray(geometry.object_pixel_m)
    if not np.allclose(start.pixel_m, pixel, rtol=_SAME_PIXEL, atol=0):
        raise SolverError(
            f"the object to begin with has pixels of {start.pixel_m[0]:.4g} m x {start.pixel_m[1]:.4g} m, but the geometry gives "
            f"{pixel[0]:.4g} m x {pixel[1]:.4g} m: begin without it."
        )
    return np.asarray(start.origin_m / pixel)


def start_state(
    start_probe: NDArray[Any], probe_modes: int, placement: Placement, mine: RankFrames, way: Walk, object_modes: int = 1
) -> State:
    """Object of ones, the start probe with its weak modes at the power of the mean frame, no waves yet."""
    shape, do = mine.good.shape, way.verbs
    probe = do.array(given_probe(start_probe, shape, probe_modes).astype(do.dtype))
    do.fix_power(probe, do.zeros((1, 1, 1), do.dtype), way.power)
    image = do.array(start_object(placement.object_shape, do.dtype, object_modes))
    return State(image, probe, do.zeros((0, 1, *shape), do.dtype), window_of(mine.corners, shape))


def begin_from(start: Snapshot, state: State, way: Walk, measured: Measured) -> None:
    """Put the object and probe of ``start`` into the state, as they fit together."""
    do, modes = way.verbs, len(state.object)
    image = np.array(start.object[None], do.dtype)
    shift = np.rint(lattice_of(start, measured.manner.geometry) - measured.origin_px).astype(np.int64)
    there = on_canvas(image, np.ones(image.shape[1:]), shift, measured.placement.object_shape)
    state.object = do.array(np.concatenate([there, do.host(state.object)[1:modes]]))
    state.probe = do.array(given_probe(start.probe, way.frames.good.shape, len(state.probe)).astype(do.dtype))
    do.fix_power(state.probe, state.object, way.power)


def way_of(mine: RankFrames, unseen: RankFrames, frame_count: int, verbs: Verbs, ranks: Ranks) -> Walk:
    """The way of a rank. All ranks call it together.

    mine: the frames to be fitted, ``frame_count`` on all ranks; unseen: those held out

    Raises:
        SolverError: all frames are empty.
    """
    counts = np.zeros(2)
    for place, frames in enumerate((mine, unseen)):
        for frame in frames.counts:
            counts[place] += frame.sum(where=frames.good, dtype=np.float64)
    total, held_out = map(float, ranks.sum(counts))
    if not total > 0:
        raise SolverError(
            f"all {frame_count} frames are empty in their good pixels: was the shutter open, and is the mask right (0 = good)?"
        )
    way = Walk(mine, verbs, ranks, ranks.largest(len(mine)), total, total / frame_count)
    if ranks.largest(len(unseen)):
        way.held_out, way.held_out_counts = unseen, held_out
    return way


def names_of(verbs: Verbs, choice: VerbsChoice) -> dict[str, str]:
    """Which verbs they are, and how exact."""
    precision = "double" if verbs.dtype == np.complex128 else "half" if isinstance(verbs, CudaVerbs) and verbs.half_waves else "single"
    name = choice if isinstance(choice, str) else "cuda" if isinstance(verbs, CudaVerbs) else type(verbs).__name__
    return {"precision": precision, "verbs": "reference" if precision == "double" and isinstance(choice, str) else name}


def margin_px(recipe: Recipe) -> int:
    """Pixels around the positions, such that frames may move as far as the recipe lets them."""
    every = [refinements_of(stage) for stage in recipe.stages]
    return _MARGIN_PX + math.ceil(max((each.positions_max for each in every if each.positions != "fixed"), default=0))


def check_modes(probe_modes: int, object_modes: int) -> None:
    """Raise a SolverError for a number of modes below 1."""
    for name, modes in (("probe_modes", probe_modes), ("object_modes", object_modes)):
        if modes < 1:
            raise SolverError(f"{name} = {modes}: give 1 or more.")
