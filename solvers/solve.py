"""solve: frames and positions in, image out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import (
    DEFAULT_RECIPE,
    Frames,
    Geometry,
    Placement,
    Preparation,
    Progress,
    Recipe,
    Reconstruction,
    Scan,
    ScanError,
    SolverError,
    Subpixel,
)
from ptyplugin.solvers.algorithms import check_recipe
from ptyplugin.solvers.batches import RankFrames, frames_of_rank
from ptyplugin.solvers.prepare import prepare
from ptyplugin.solvers.ranks import OneRank, Ranks, failing_together
from ptyplugin.solvers.run import Walk, walk
from ptyplugin.solvers.start import median_step, probe_from_data
from ptyplugin.solvers.state import State, given_probe, orthogonal_modes, start_object, window_of
from ptyplugin.solvers.verbs import Verbs
from ptyplugin.solvers.verbs.choice import Precision, VerbsName, verbs_of

_LOG = logging.getLogger(__name__)

#: What is run when nobody says otherwise: find the image, refine it, then average the noise out of it by small steps.
DEFAULT = Recipe.parse(DEFAULT_RECIPE)

#: A result with a larger error explains the frames no better than darkness does.
_WORST_ERROR = 1.0


def solve(
    frames: Frames,
    scan: Scan,
    geometry: Geometry,
    *,
    preparation: Preparation | None = None,
    recipe: Recipe = DEFAULT,
    probe_modes: int = 1,
    subpixel: Subpixel = "none",
    seed: int = 0,
    start_probe: NDArray[Any] | None = None,
    ranks: Ranks | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    job_key: str = "",
    precision: Precision = "single",
    verbs: VerbsName = "cpu",
) -> Reconstruction | None:
    """Reconstruct object and probe. With several ranks, all of them call it together; rank 0 gets the result, the others None.

    Args:
        frames: one frame per position of ``scan``, in its order.
        scan: positions; sub-steps of a fly scan add incoherently.
        geometry: of the frames after ``preparation``.
        preparation: crop, mask, orientation.
        recipe: what to run.
        probe_modes: probe modes that add incoherently.
        subpixel: "probe" moves the probe by what rounding a position to pixels leaves over; "none" leaves it out.
        seed: fixes the order of frames where it is random: the same seed on as many ranks gives the same bits.
        start_probe: (y, x) or (mode, y, x) in the object's orientation and pixel; from the frames if None.
        ranks: OneRank() if None.
        on_progress: called on rank 0 after each iteration.
        cancelled: asked on every rank after each iteration; True on any rank stops all.
        job_key: passed on in Progress.
        precision: complex64, or complex128 (then of the result too, and by the reference verbs).
        verbs: "cpu", or "reference": NumPy, several times slower, the judge.

    Raises:
        RecipeError: an unknown algorithm or option.
        ScanError: positions and frames do not match.
        FramesError: frames that cannot be read.
        GeometryError: frames of another shape.
        Cancelled: ``cancelled`` said so.
        SolverError: it diverged, does not fit into memory, or another rank failed (with that rank's sentence).
    """
    ranks = ranks or OneRank()
    with failing_together(ranks):
        check_recipe(recipe)
        _check(frames, scan, probe_modes)
        placement = _placed(scan, geometry, subpixel)
        _check_memory(len(scan), placement, geometry, probe_modes, precision, ranks)
        numbers = frames_of_rank(scan.positions_m.mean(axis=1), ranks.rank, ranks.size)
        mine = prepare(frames, numbers, placement, geometry, preparation or Preparation(), ranks)
        way = _way(mine, len(scan), verbs_of(verbs, geometry, precision, _threads(ranks)), ranks)
        way.seed, way.job_key, way.on_progress, way.cancelled = seed, job_key, on_progress, cancelled
        if start_probe is None:
            start_probe = probe_from_data(mine, placement.corners.mean(axis=1), geometry, seed, ranks)
        state = start_state(start_probe, probe_modes, placement, mine, way)
        walk(recipe, state, way)
        said = {
            "recipe": str(recipe),
            "probe_modes": probe_modes,
            "subpixel": subpixel,
            "seed": seed,
            "precision": precision,
            "verbs": verbs,
            "ranks": ranks.size,
        }
        return _reconstruction(state, scan, placement, geometry, way, said) if ranks.rank == 0 else None


def start_state(start_probe: NDArray[Any], probe_modes: int, placement: Placement, mine: RankFrames, way: Walk) -> State:
    """Object of ones, the start probe with its weak modes at the power of the mean frame, no waves yet."""
    shape, dtype = mine.good.shape, way.verbs.dtype
    probe = given_probe(start_probe, shape, probe_modes).astype(dtype)
    way.verbs.fix_power(probe, np.ones(1, dtype=dtype), way.power)
    waves = np.empty((0, 1, *shape), dtype=dtype)
    return State(start_object(placement.object_shape, dtype), probe, waves, window_of(mine.corners, shape))


def _threads(ranks: Ranks) -> int:
    """This rank's share of the processor's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // ranks.size)


def _way(mine: RankFrames, frame_count: int, verbs: Verbs, ranks: Ranks) -> Walk:
    counts = np.zeros(1)
    for frame in mine.counts:
        counts += frame.sum(where=mine.good, dtype=np.float64)
    total = float(ranks.sum(counts)[0])
    if not total > 0:
        raise SolverError(
            f"all {frame_count} frames are empty in their good pixels: was the shutter open, and is the mask right (0 = good)?"
        )
    return Walk(mine, verbs, ranks, ranks.largest(len(mine)), total, total / frame_count)


def _placed(scan: Scan, geometry: Geometry, subpixel: Subpixel) -> Placement:
    placement = scan.place(geometry)
    return placement if subpixel == "probe" else placement._replace(rests=np.zeros_like(placement.rests))


def _check(frames: Frames, scan: Scan, probe_modes: int) -> None:
    if len(frames) != len(scan):
        raise ScanError(f"{len(frames)} frames but {len(scan)} positions: give one position per frame.")
    if probe_modes < 1:
        raise SolverError(f"probe_modes = {probe_modes}: give 1 or more.")


def _check_memory(frame_count: int, placement: Placement, geometry: Geometry, modes: int, precision: str, ranks: Ranks) -> None:
    """What the solver will need, said before anything is allocated.

    Raises:
        SolverError: more than this machine has.
    """
    pixels, itemsize = geometry.shape[0] * geometry.shape[1], 8 if precision == "single" else 16
    waves = modes * placement.corners.shape[1]
    needed = (
        frame_count * pixels * (2 + waves * itemsize) + ranks.size * 4 * placement.object_shape[0] * placement.object_shape[1] * itemsize
    )
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    _LOG.info("%d frames, object %d x %d px: about %.2g GB of memory", frame_count, *placement.object_shape, needed / 1e9)
    if needed > there:
        raise SolverError(
            f"{frame_count} frames of {geometry.shape[0]} x {geometry.shape[1]} px with {waves} waves each need about "
            f"{needed / 1e9:.0f} GB of memory, this machine has {there / 1e9:.0f} GB: crop the frames, or use fewer probe modes."
        )


def _reconstruction(state: State, scan: Scan, placement: Placement, geometry: Geometry, way: Walk, said: dict[str, Any]) -> Reconstruction:
    probe, error = orthogonal_modes(state.probe), way.progress[-1].errors["error"]
    if not (np.isfinite(state.object).all() and np.isfinite(probe).all() and error <= _WORST_ERROR):
        raise SolverError(
            f"the reconstruction diverged: its error is {error:.3g} (0 is perfect, 1 is darkness). Check the geometry, the positions "
            "and the orientation, or use smaller steps."
        )
    good = way.frames.good if geometry.near_field else np.fft.fftshift(way.frames.good)
    return Reconstruction(
        object=state.object,
        probe=probe,
        geometry=geometry,
        positions_m=scan.positions_m.mean(axis=1),
        positions_px=(placement.corners + placement.rests.astype(np.float64)).mean(axis=1),
        mask=(~good).astype(np.uint8),
        progress=way.progress,
        quality=_quality(probe, placement, error),
        provenance=said | {"numpy": np.__version__, "scipy": version("scipy"), "seconds": way.progress[-1].seconds},
    )


def _quality(probe: NDArray[Any], placement: Placement, error: float) -> dict[str, float]:
    """Numbers that tell whether to trust the image.

    overlap: 1 - step / diameter, of the disc with the probe's second moment; coherent_share: power of the strongest mode
    """
    power = (np.abs(probe) ** 2).sum(axis=0)
    y, x = np.indices(power.shape)
    mean = [float((power * axis).sum() / power.sum()) for axis in (y, x)]
    diameter = 2 * float(np.sqrt(2 * (power * ((y - mean[0]) ** 2 + (x - mean[1]) ** 2)).sum() / power.sum()))
    step = median_step(placement.corners.mean(axis=1))
    share = float((np.abs(probe[0]) ** 2).sum() / power.sum())
    return {
        "error": error,
        "frames": float(len(placement.corners)),
        "probe_diameter_px": diameter,
        "step_px": step,
        "overlap": 1 - step / diameter,
        "coherent_share": share,
    }
