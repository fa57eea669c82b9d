"""Job: what to solve, from where, how. References only; JSON round trip; the only thing that travels between processes."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, field_validator

from ptyplugin.model.errors import JobError, ScanError
from ptyplugin.model.frames import FrameBlock, FrameRanges
from ptyplugin.model.geometry import Geometry
from ptyplugin.model.preparation import Preparation
from ptyplugin.model.recipe import Recipe
from ptyplugin.model.scan import Scan, Subpixel

_Model = TypeVar("_Model", bound=BaseModel)

#: What to compute on: "auto" takes a GPU that can be used, or says why not.
DeviceName = Literal["auto", "cpu", "gpu"]
#: Changes when the same job would give another result file; part of the key.
RESULT_FORMAT = 1
#: Positions of more frames than this lie beside the job as an .npy file.
INLINE_FRAMES = 10_000


class _Border(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HandedOver(_Border):
    """What one process hands over to another: JSON, one text for one value."""

    def to_bytes(self) -> bytes:
        """Canonical JSON: the same value gives the same bytes."""
        return canonical_json(self.model_dump(mode="json"))


class RunSource(_Border):
    """A Bluesky run: the detector's data key in one of its streams."""

    kind: Literal["run"] = "run"
    run_uid: str
    stream: str = "primary"
    key: str
    scan_id: int | None = None
    begun_s: float | None = Field(
        None, allow_inf_nan=False, description="when it began, Unix seconds: tells its frames in a spool from those of earlier runs"
    )


#: What is not asked of a source to tell one from another.
_NOT_IN_KEY = {"scan_id", "begun_s", "name"}


class FileSource(_Border):
    """A file, known by its content."""

    kind: Literal["file"] = "file"
    content_id: str = Field(description="see ptyplugin.io.content_id")
    name: str


class GeometryNumbers(_Border):
    """Geometry as JSON; see ptyplugin.model.Geometry for the meaning of each number."""

    energy_ev: float
    distance_m: float
    pixel_m: float
    shape: tuple[int, int]
    focus_distance_m: PositiveFloat | None = None

    def build(self) -> Geometry:
        """The Geometry of these numbers, checked."""
        return Geometry(self.energy_ev, self.distance_m, self.pixel_m, self.shape, self.focus_distance_m)


class BesideArray(_Border):
    """An array in ``name`` beside the job."""

    name: str = Field(pattern=r"^[A-Za-z0-9_]+\.npy$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Resources(_Border):
    """What to run on. Not part of the key: it must not change the result."""

    ranks: PositiveInt | None = None
    device: DeviceName = "auto"
    priority: int = 0


class Job(HandedOver):
    """What to solve, from where, how."""

    format: Literal[1] = 1
    beamline: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    source: RunSource | FileSource = Field(discriminator="kind")
    purpose: Literal["live", "final"] = "final"
    geometry: GeometryNumbers
    preparation: Preparation = Preparation()
    recipe: str
    probe_modes: PositiveInt = 1
    object_modes: PositiveInt = Field(1, description="states of the sample that add incoherently; part of the key when not 1")
    subpixel: Subpixel = Field("probe", description="whether positions between pixels are met, by moving the probe")
    seed: NonNegativeInt = 0
    start_probe: BesideArray | None = None
    frames: list[FrameBlock]
    frame_ids: FrameRanges = Field(description="half-open ranges, in the order of the frames")
    positions_m: list[list[tuple[float, float]]] | BesideArray = Field(description="(frame, substep, yx) in metres")
    positions_from: str = Field("", description="signs, data keys and units behind the positions of a run; part of the key")
    monitor: list[float] | BesideArray | None = Field(
        None, description="(frame,) intensity of the beam relative to its mean, if it was measured; then part of the key"
    )
    extent_m: tuple[tuple[float, float], tuple[float, float]] | None = Field(
        None, description="lowest and highest position (y, x), metres, that the run announced; only what is shown of a live job goes by it"
    )
    notes: list[str] = Field(default=[], description="sentences for people: what was left out, and why")
    attempt: NonNegativeInt = Field(0, description="number of the explicit re-run; part of the key when not 0")
    resources: Resources = Resources()

    @field_validator("recipe")
    @classmethod
    def _recipe_is_canonical(cls, text: str) -> str:
        return str(Recipe.parse(text))

    @property
    def key(self) -> str:
        """16 hex digits: the same for the same source, preparation, geometry, recipe, modes, subpixel, seed, purpose, result format."""
        what: dict[str, Any] = {
            "source": self.source.model_dump(mode="json", exclude=_NOT_IN_KEY),
            "preparation": self.preparation.model_dump(mode="json"),
            "geometry": self.geometry.model_dump(mode="json"),
            "recipe": self.recipe,
            "probe_modes": self.probe_modes,
            "subpixel": self.subpixel,
            "seed": self.seed,
            "positions_from": self.positions_from,
            "start_probe": self.start_probe.sha256 if self.start_probe else None,
            "purpose": self.purpose,
            "result_format": RESULT_FORMAT,
        }
        if self.object_modes != 1:
            what["object_modes"] = self.object_modes
        if self.monitor is not None:
            what["monitor"] = self.monitor.sha256 if isinstance(self.monitor, BesideArray) else self.monitor
        if self.attempt:
            what["attempt"] = self.attempt
        return hashlib.sha256(canonical_json(what)).hexdigest()[:16]

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        return sum(stop - start for start, stop in self.frame_ids)

    @classmethod
    def from_bytes(cls, data: bytes) -> Job:
        """Read a job from its JSON.

        Raises:
            JobError: it is no job; the message says which field is wrong.
        """
        return read_border(cls, data, "job")

    def scan(self, folder: Path | None) -> Scan:
        """The Scan of this job; ``folder`` is where its arrays lie.

        Raises:
            ScanError: the positions cannot be.
            JobError: the array beside the job is missing or not the one that was sent.
        """
        return scan_of(self.frame_ids, self.positions_m, self.monitor, folder)


class Refusal(HandedOver):
    """A run that should have become a job and cannot: it is kept as a failed job with its sentence."""

    format: Literal[1] = 1
    refused: Literal[True] = True
    beamline: str
    source: RunSource
    purpose: Literal["live", "final"] = "final"
    reason: str

    @property
    def key(self) -> str:
        """16 hex digits, the same for the same run and detector."""
        what = {"source": self.source.model_dump(mode="json", exclude=_NOT_IN_KEY), "purpose": self.purpose, "refused": True}
        return hashlib.sha256(canonical_json(what)).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class JobParts:
    """A job and the arrays that lie beside it, by file name."""

    job: Job
    arrays: dict[str, NDArray[Any]]


def geometry_numbers(geometry: Geometry) -> GeometryNumbers:
    """A Geometry as JSON numbers."""
    return GeometryNumbers(**asdict(geometry))


def positions_field(positions_m: NDArray[np.float64], arrays: dict[str, NDArray[Any]]) -> Any:
    """Positions (frame, substep, yx) as the job's field; of many frames they are put into ``arrays`` as positions.npy."""
    if len(positions_m) <= INLINE_FRAMES:
        return positions_m.tolist()
    return put_beside("positions.npy", np.ascontiguousarray(positions_m, dtype=np.float64), arrays)


def monitor_field(monitor: NDArray[np.float64] | None, arrays: dict[str, NDArray[Any]]) -> Any:
    """A monitor (frame,) as the job's field, as ``positions_field``; monitor.npy."""
    if monitor is None or len(monitor) <= INLINE_FRAMES:
        return None if monitor is None else monitor.tolist()
    return put_beside("monitor.npy", np.ascontiguousarray(monitor, dtype=np.float64), arrays)


def put_beside(name: str, array: NDArray[Any], arrays: dict[str, NDArray[Any]]) -> BesideArray:
    """Add ``array`` to the arrays that travel beside a job; gives its reference."""
    arrays[name] = array
    return BesideArray(name=name, sha256=array_sha256(array))


def scan_of(
    frame_ids: list[tuple[int, int]],
    positions_m: list[list[tuple[float, float]]] | BesideArray,
    monitor: list[float] | BesideArray | None,
    folder: Path | None,
) -> Scan:
    """The Scan that these fields of a job say; ``folder`` is where arrays lie beside it.

    Raises:
        ScanError, JobError: as Job.scan.
    """
    ids = np.concatenate([np.arange(a, b, dtype=np.int64) for a, b in frame_ids] or [np.empty(0, np.int64)])
    said = read_beside(folder, monitor) if isinstance(monitor, BesideArray) else monitor
    measured = None if said is None else np.asarray(said, dtype=np.float64)
    if isinstance(positions_m, BesideArray):
        return Scan(read_beside(folder, positions_m), ids, measured)
    if len({len(substeps) for substeps in positions_m}) > 1:
        raise ScanError("the job's frames have different numbers of sub-steps: give the same number of positions for each frame.")
    return Scan(np.asarray(positions_m, dtype=np.float64), ids, measured)


def array_sha256(array: NDArray[Any]) -> str:
    """sha256 of an array's .npy bytes."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def read_beside(folder: Path | None, reference: BesideArray) -> NDArray[Any]:
    """The array beside a job.

    Raises:
        JobError: missing, not an array, or not the one that was sent.
    """
    if folder is None:
        raise JobError(f"the job needs {reference.name} beside it, but was given without a folder: submit it with its arrays.")
    path = folder / reference.name
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise JobError(f"{path}: the job's array cannot be read ({error}): submit the job again.") from error
    if array_sha256(array) != reference.sha256:
        raise JobError(f"{path} is not the array that was submitted with the job: submit the job again.")
    return np.asarray(array)


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: one value, one text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def read_border(model: type[_Model], data: bytes, what: str) -> _Model:
    """Read a pydantic model from JSON.

    Raises:
        JobError: it is no ``what``; one sentence names the place of the first mistake.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the text"
        raise JobError(f"this {what} cannot be read: {place}: {first['msg']}.") from error
