"""solve: frames and positions in, image out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from ptyplugin.model import DEFAULT_RECIPE, DeviceName, Frames, Geometry, Preparation, Progress, Recipe, Reconstruction, Scan, Subpixel
from ptyplugin.solvers.held_out import SHARE
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.solver import Solver
from ptyplugin.solvers.verbs.choice import Precision, VerbsChoice
from ptyplugin.solvers.verbs.cpu_fft import FftName

#: What is run when nobody says otherwise: find the image, refine it, then average the noise out of it by small steps.
DEFAULT = Recipe.parse(DEFAULT_RECIPE)


def solve(
    frames: Frames,
    scan: Scan,
    geometry: Geometry,
    *,
    preparation: Preparation | None = None,
    recipe: Recipe = DEFAULT,
    probe_modes: int = 1,
    object_modes: int = 1,
    subpixel: Subpixel = "probe",
    seed: int = 0,
    start_probe: NDArray[Any] | None = None,
    ranks: Ranks | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    job_key: str = "",
    precision: Precision = "single",
    device: DeviceName = "auto",
    verbs: VerbsChoice | None = None,
    fft: FftName | None = None,
    memory_bytes: int | None = None,
    held_out: float = SHARE,
) -> Reconstruction | None:
    """Reconstruct object and probe. With several ranks, all of them call it together; rank 0 gets the result, the others None.

    The arguments are those of ``Solver``; this is its loop.

    Raises:
        RecipeError: an unknown algorithm or option.
        ScanError: positions and frames do not match.
        FramesError, GeometryError: frames that cannot be read, or of another shape.
        Cancelled: ``cancelled`` said so.
        DeviceError: a GPU was asked for, and there is none to be used.
        SolverError: it diverged, does not fit into memory, or another rank failed (with that rank's sentence).
    """
    solver = Solver(
        frames,
        scan,
        geometry,
        recipe,
        preparation=preparation,
        probe_modes=probe_modes,
        object_modes=object_modes,
        subpixel=subpixel,
        seed=seed,
        start_probe=start_probe,
        ranks=ranks,
        on_progress=on_progress,
        cancelled=cancelled,
        job_key=job_key,
        precision=precision,
        device=device,
        verbs=verbs,
        fft=fft,
        memory_bytes=memory_bytes,
        held_out=held_out,
    )
    for _ in solver:
        pass
    return solver.result()
