"""make_job: what was asked for, as a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydantic import ValidationError

from ptyplugin.api.opening import OpenScan
from ptyplugin.io import StartProbe, read_probe
from ptyplugin.model import DeviceName, Geometry, GeometryError, Job, JobError, JobParts, Recipe, Stage, Subpixel, put_beside
from ptyplugin.solvers import check_recipe

START_PROBE = "start_probe.npy"


def make_job(
    scan: OpenScan,
    recipe: str | Recipe | Stage | None = None,
    *,
    probe_modes: int | None = None,
    object_modes: int | None = None,
    subpixel: Subpixel | None = None,
    probe: Path | str | NDArray[Any] | StartProbe | None = None,
    crop_px: int | None = None,
    seed: int | None = None,
    ranks: int | None = None,
    device: DeviceName = "auto",
) -> JobParts:
    """The job that reconstructs ``scan`` in this way; what is not given stays as the scan's profile or file says.

    recipe: text such as "DM(200) + ePIE(100)", a Recipe or a Stage
    probe_modes: by default as many as a ``probe`` given here has, else as the profile says
    object_modes: states of the sample that add incoherently (it vibrates, or switches while a frame is taken)
    subpixel: "probe" moves the probe by what rounding a position to pixels leaves over; "none" leaves it out
    probe: start probe: a file (see ptyplugin.io.read_probe), or an array (y, x) or (mode, y, x) on the object's pixels
    crop_px: side of the square kept around the zero frequency; makes the object's pixels larger in the far field

    Raises:
        RecipeError: an unknown algorithm or option.
        FileFormatError: no probe in the file.
        GeometryError, JobError: a number that cannot be.
    """
    job, arrays = scan.parts.job, dict(scan.parts.arrays)
    wanted = {"ranks": job.resources.ranks if ranks is None else ranks, "device": device}
    changes: dict[str, Any] = {"resources": {**job.resources.model_dump(), **wanted}}
    if recipe is not None:
        changes["recipe"] = str(Recipe.parse(recipe) if isinstance(recipe, str) else recipe)
    check_recipe(Recipe.parse(changes.get("recipe", job.recipe)))
    if crop_px is not None:
        changes |= _crop(job, crop_px)
    said = {"object_modes": object_modes, "subpixel": subpixel, "seed": seed}
    changes |= {name: value for name, value in said.items() if value is not None}
    start = _start_probe(probe) or scan.start_probe
    if probe_modes is None:
        probe_modes = len(start.modes) if probe is not None and start else job.probe_modes
    changes["probe_modes"] = probe_modes
    changed = _validated(job, changes)
    if start is not None:
        changed = _starting_from(changed, start, arrays)
    return JobParts(changed, arrays)


def _crop(job: Job, crop_px: int) -> dict[str, Any]:
    smallest = min(job.geometry.shape)
    if crop_px > smallest and job.preparation.crop_px is None:
        raise GeometryError(f"a crop of {crop_px} px is larger than the frames of {smallest} px: give {smallest} or less.")
    Geometry(job.geometry.energy_ev, job.geometry.distance_m, job.geometry.pixel_m, (crop_px, crop_px))
    return {
        "preparation": {**job.preparation.model_dump(), "crop_px": crop_px},
        "geometry": job.geometry.model_copy(update={"shape": (crop_px, crop_px)}),
    }


def _start_probe(probe: Path | str | NDArray[Any] | StartProbe | None) -> StartProbe | None:
    if probe is None or isinstance(probe, StartProbe):
        return probe
    if isinstance(probe, Path | str):
        return read_probe(Path(probe).expanduser())
    return StartProbe.of(probe, None, "the array given")


def _starting_from(job: Job, start: StartProbe, arrays: dict[str, NDArray[Any]]) -> Job:
    modes, said = start.on_grid(job.geometry.build())
    notes = [said] if said else []
    if len(modes) > job.probe_modes:
        notes.append(f"Of the {len(modes)} modes of the start probe the first {job.probe_modes} are used ({start.origin}).")
        modes = modes[: job.probe_modes]
    return _validated(job, {"start_probe": put_beside(START_PROBE, modes, arrays), "notes": [*job.notes, *notes]})


def _validated(job: Job, changes: dict[str, Any]) -> Job:
    try:
        return Job.model_validate({**dict(job), **changes})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise JobError(f"{place} = {first['input']!r} cannot be: {first['msg']}.") from error
