"""The assembler: what was collected of a run, and a profile, make a job; or one sentence why not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.callbacks.announcing import announced_extent
from ptyplugin.callbacks.checks import check_keys, listed, notes_on
from ptyplugin.callbacks.documents import quantities_of
from ptyplugin.callbacks.locating import LatePositions, PositionReader, parted
from ptyplugin.callbacks.pairing import FrameAt, Record
from ptyplugin.callbacks.quantities import in_stored_unit
from ptyplugin.callbacks.run import CollectedRun
from ptyplugin.callbacks.settling import far_outside, standing_still, width_of_line
from ptyplugin.model import (
    ENERGY_UNITS_EV,
    LENGTH_UNITS_M,
    BesideSource,
    CatalogAway,
    FrameBlock,
    FramesError,
    Geometry,
    Job,
    JobParts,
    LiveTable,
    Preparation,
    Profile,
    ProfileError,
    PtypluginError,
    Refusal,
    RunSource,
    Scan,
    ScanError,
    geometry_numbers,
    monitor_field,
    positions_field,
    put_beside,
    ranges_of,
)
from ptyplugin.model import Growth as JobGrowth
from ptyplugin.model.steps import check_steps

FRAMES_FILE = "frames.npy"


#: From one look at files that do not show all positions yet to the next, seconds.
PAUSE_S = 0.05


class Assembling:
    """The job of a run that has ended, with the arrays that lie beside it; or the refusal that says why there is none.

    The same content of documents and files gives the same bytes, in whatever order they came. ``reader`` reads positions that lie in
    files, which have DEADLINE_S from now on to show them; without it a run that has such is refused.
    """

    def __init__(self, run: CollectedRun, profile: Profile, reader: PositionReader | None = None) -> None:
        self.run, self.profile = run, profile
        self._reader = reader
        self._positions: LatePositions | None = None

    def look(self) -> JobParts | Refusal | None:
        """The job or the refusal; None as long as positions may still come: look again after PAUSE_S.

        Raises:
            CatalogAway: positions lie in the catalog, which is away: nobody knows yet what comes of the run.
        """
        try:
            if self._positions is None:
                check_keys(self.run, self.profile)
                if self.run.problems:
                    raise FramesError(self.run.problems[0])
                self._positions = LatePositions(self.run, self.profile, self._reader)
            run = self._positions.look()
            return None if run is None else _parts(run, self.profile)
        except CatalogAway:
            raise
        except PtypluginError as error:
            return refusal(self.run, self.profile, str(error))


def assemble(run: CollectedRun, profile: Profile, reader: PositionReader | None = None) -> JobParts | Refusal:
    """What ``Assembling`` gives in the end; waits for it.

    Raises:
        CatalogAway: positions lie in the catalog, which is away.
    """
    assembling = Assembling(run, profile, reader)
    while (parts := assembling.look()) is None:
        time.sleep(PAUSE_S)
    return parts


def refusal(run: CollectedRun, profile: Profile, reason: str) -> Refusal:
    """What is handed over in place of a job: the run, and why there is none."""
    return Refusal(beamline=profile.beamline, source=_source(run, profile), reason=reason)


def _parts(run: CollectedRun, profile: Profile) -> JobParts:
    notes = notes_on(run, profile)
    records = within(run, profile, notes)
    monitor = _monitor(records, profile, notes)
    parts = _job(run, records, monitor, profile)
    at_m, pixel_m = positions_of(records, profile).mean(axis=1), parts.job.geometry.build().object_pixel_m
    if stood := standing_still(at_m, max(pixel_m)):
        notes.append(stood)
    length_m, width_m = width_of_line(at_m)
    if width_m < min(pixel_m):
        notes.append(f"The scan is one line of {length_m:.3g} m: the image is a strip along it, as wide as the beam.")
    return JobParts(parts.job.model_copy(update={"notes": notes}), parts.arrays)


def assemble_live(run: CollectedRun, records: Sequence[Record], profile: Profile, table: LiveTable) -> JobParts:
    """The job that is solved while the run goes on, of the frames that have their positions so far.

    Raises:
        PtypluginError: there can be none, or not yet.
    """
    check_keys(run, profile)
    if run.problems:
        raise FramesError(run.problems[0])
    parts = _job(run, records, None, profile)
    check_steps(positions_of(records, profile).mean(axis=1), parts.job.geometry.build())
    changed = {"purpose": "live", "recipe": table.recipe, "probe_modes": table.probe_modes, "extent_m": announced_extent(run, profile)}
    return JobParts(parts.job.model_copy(update=changed), parts.arrays)


def growth_of(key: str, first: int, records: Sequence[Record], profile: Profile, ended: bool) -> tuple[JobGrowth, dict[str, NDArray[Any]]]:
    """Further frames of the live job ``key``, which has ``first`` so far; and the arrays that lie beside them.

    Raises:
        PtypluginError: frames that do not fit together.
    """
    if not records:
        return JobGrowth(job=key, first=first, ended=ended), {}
    arrays: dict[str, NDArray[Any]] = {}
    blocks, ids = _blocks(records, arrays), ranges_of([record.frame_id for record in records])
    positions = positions_field(positions_of(records, profile), arrays)
    return JobGrowth(job=key, first=first, frames=blocks, frame_ids=ids, positions_m=positions, ended=ended), arrays


def _job(run: CollectedRun, records: Sequence[Record], monitor: NDArray[np.float64] | None, profile: Profile) -> JobParts:
    positions_m, ids = positions_of(records, profile), [record.frame_id for record in records]
    Scan(positions_m, np.array(ids), monitor)
    arrays: dict[str, NDArray[Any]] = {}
    blocks = _blocks(records, arrays)
    job = Job(
        beamline=profile.beamline,
        source=_source(run, profile),
        geometry=geometry_numbers(_geometry(run, profile, _frame_shape(run, profile, arrays))),
        preparation=_preparation(profile),
        recipe=profile.reconstruction.recipe,
        probe_modes=profile.reconstruction.probe_modes,
        object_modes=profile.reconstruction.object_modes,
        subpixel=profile.reconstruction.subpixel,
        seed=profile.reconstruction.seed,
        frames=blocks,
        frame_ids=ranges_of(ids),
        positions_m=positions_field(positions_m, arrays),
        positions_from=_axes_in_words(profile),
        monitor=monitor_field(monitor, arrays),
    )
    return JobParts(job, arrays)


def within(run: CollectedRun, profile: Profile, notes: list[str]) -> Sequence[Record]:
    """The records of the run that are part of the scan; a note says how many are not.

    Raises:
        ScanError: as ``positions_of``.
    """
    records = run.records
    far = far_outside(positions_of(records, profile).mean(axis=1), announced_extent(run, profile))
    if not far.any():
        return records
    notes.append(f"Left out, frames far outside of the scan (was the stage still on its way?): {far.sum()} of {len(records)}.")
    return [record for record, is_far in zip(records, far, strict=True) if not is_far]


def positions_of(records: Sequence[Record], profile: Profile) -> NDArray[np.float64]:
    """Positions (frame, substep, yx) m; as many sub-steps as recorded, or as many means as the profile wants.

    Raises:
        ScanError: some frames have more positions than others, or fewer than sub-steps.
    """
    counts = {len(record.positions_m) for record in records}
    if len(counts) > 1:
        raise ScanError(f"the frames have {min(counts)} to {max(counts)} positions on their way: record the same number for each.")
    positions_m = np.array([record.positions_m for record in records], dtype=np.float64).reshape(len(records), max(counts, default=1), 2)
    substeps = profile.positions.substeps
    return positions_m if substeps is None else parted(positions_m, substeps)


def _monitor(records: Sequence[Record], profile: Profile, notes: list[str]) -> NDArray[np.float64] | None:
    """(frame,) relative to its mean; frames whose monitor says nothing have the mean, and a note says so.

    Raises:
        ProfileError: it says nothing at all.
    """
    if profile.monitor is None:
        return None
    found = np.array([record.monitor for record in records])
    known = np.isfinite(found) & (found > 0)
    if not known.any():
        raise ProfileError(f"the monitor {profile.monitor!r} reads nothing above zero in this run: correct the key, or leave it out.")
    if not known.all():
        notes.append(f"The monitor {profile.monitor!r} reads nothing above zero for {(~known).sum()} frames: the mean is used for them.")
    return np.where(known, found / found[known].mean(), 1.0)


def _axes_in_words(profile: Profile) -> str:
    """A corrected sign or unit in the profile makes another job of the same run."""
    positions = profile.positions
    axes = {"y": positions.y, "x": positions.x}
    said = [f"{name} = {'+' if axis.sign > 0 else '-'}{axis.key} [{axis.unit or 'as the document says'}]" for name, axis in axes.items()]
    said += [f"stream {positions.stream}"] if positions.stream is not None else []
    said += [f"sub-steps {positions.substeps}"] if positions.substeps is not None else []
    said += [f"by time {positions.clock.model_dump_json(exclude_none=True)}"] if positions.clock is not None else []
    return ", ".join(said)


def _source(run: CollectedRun, profile: Profile) -> RunSource:
    key, stream = profile.detector.key, profile.detector.stream
    return RunSource(run_uid=run.uid, stream=stream, key=key, scan_id=run.scan_id, begun_s=run.begun_s)


def _blocks(records: Sequence[Record], arrays: dict[str, NDArray[Any]]) -> list[FrameBlock]:
    """The frames of the records in their order; those that came inside events are put into ``arrays``.

    Raises:
        FramesError: frames inside events have different shapes.
    """
    located = [record.frame for record in records if isinstance(record.frame, FrameAt)]
    counts = [record.frame for record in records if isinstance(record.frame, np.ndarray)]
    if located and counts:
        raise FramesError(f"{len(located)} frames lie in files and {len(counts)} inside events: let the detector do one of both.")
    if not counts:
        groups = groupby(located, key=lambda frame: frame.source)
        return [FrameBlock(source=source, ranges=ranges_of([frame.number for frame in group])) for source, group in groups]
    shapes = {frame.shape for frame in counts}
    if len(shapes) > 1:
        raise FramesError(f"the frames inside the events have different shapes ({listed(map(str, shapes))}): keep one.")
    beside = put_beside(FRAMES_FILE, np.stack(counts), arrays)
    return [FrameBlock(source=BesideSource(name=beside.name, sha256=beside.sha256), ranges=[(0, len(counts))])]


def _frame_shape(run: CollectedRun, profile: Profile, arrays: dict[str, NDArray[Any]]) -> tuple[int, int]:
    if FRAMES_FILE in arrays:
        rows, columns = arrays[FRAMES_FILE].shape[1:]
        return rows, columns
    shape = run.data_keys[profile.detector.stream][profile.detector.key].shape
    if shape is None or len(shape) < 2:
        raise FramesError(f"the data key {profile.detector.key!r} has the shape {shape}, not (..., y, x): is it an area detector?")
    return shape[-2], shape[-1]


def _geometry(run: CollectedRun, profile: Profile, shape: tuple[int, int]) -> Geometry:
    """Geometry of the prepared frames: cropped and oriented."""
    crop = profile.preparation.crop_px
    if crop is not None and crop > min(shape):
        raise ProfileError(f"preparation.crop_px = {crop} px is larger than the frame of {shape[0]} x {shape[1]} px: make it smaller.")
    prepared = (crop, crop) if crop is not None else shape[::-1] if profile.detector.orientation.transposes else shape
    found: dict[str, float] = {}
    named = {name: quantity for name, quantity in quantities_of(profile).items() if name.startswith("geometry.")}
    for name, quantity in named.items():
        factors = ENERGY_UNITS_EV if name == "geometry.energy" else LENGTH_UNITS_M
        found[name] = in_stored_unit(quantity, name, factors, run.start, run.configuration, run.readings)
    return Geometry(
        energy_ev=found["geometry.energy"],
        distance_m=found["geometry.distance"],
        pixel_m=profile.detector.pixel_m,
        shape=prepared,
        focus_distance_m=found.get("geometry.focus_distance"),
    )


def _preparation(profile: Profile) -> Preparation:
    return Preparation(
        crop_px=profile.preparation.crop_px,
        centre_px=profile.preparation.centre_px,
        orientation=profile.detector.orientation,
        mask_dataset=profile.detector.mask_dataset,
        saturated_counts=profile.detector.saturated_counts,
    )
