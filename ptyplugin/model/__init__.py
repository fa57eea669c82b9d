"""The words of ptyplugin: one meaning each, everywhere. NumPy, pydantic and the standard library only.

Conventions, written once
-------------------------
* **Axes** are (frame, mode, y, x), yx always, in arrays and in tuples.
* **Units** stand in the names of stored numbers: ``energy_ev``, ``distance_m``, ``pixel_m``, ``exposure_s``. Pixels end in ``_px``.
* **Orientation**: the patch of frame i starts at row = +y_i / pixel, column = +x_i / pixel (minus the smallest, plus a margin).
  How a stored frame is turned so that this holds is ``Preparation.orientation``, one of the 8 symmetries of the square.
* **Transform**: far field, exit wave -> detector = NumPy's FFT sign, exp(-2 pi i k x / N). Near field, the Fresnel kernel
  exp(-i pi wavelength distance f^2) with the effective distance.
* **Zero frequency** of a stored frame lies at [N // 2, N // 2]. Inside the solvers frames are shifted once, zero frequency at [0, 0].
* **Mask**: 0 = good, as in CXI.
* **Probe power** is in counts: sum |probe|^2 over modes = mean counts of a frame.
* **Frame ids** number the frames of a run from 0; they survive crops and drops, so that a result can name its frames.

The words are Geometry, Scan, Frames, Profile, Recipe, Job, Growth, Progress, Snapshot, Reconstruction, Site. State belongs to the solvers.
"""

from __future__ import annotations

from ptyplugin.model.errors import (
    Cancelled,
    CatalogAway,
    CatalogError,
    DeviceBusy,
    DeviceError,
    DiskError,
    FileFormatError,
    FramesError,
    GeometryError,
    JobError,
    LedgerError,
    OutsideDataRoots,
    ProfileError,
    PtypluginError,
    RanksAway,
    RanksCrashed,
    RecipeError,
    ScanError,
    SiteError,
    SolverError,
    TimeIsUp,
)
from ptyplugin.model.frames import BesideSource, FrameBlock, Frames, FrameSource, Hdf5Source, MemoryFrames, TiledSource, ranges_of
from ptyplugin.model.geometry import Geometry
from ptyplugin.model.growth import Growth
from ptyplugin.model.job import (
    BesideArray,
    DeviceName,
    FileSource,
    GeometryNumbers,
    Job,
    JobParts,
    Refusal,
    Resources,
    RunSource,
    canonical_json,
    geometry_numbers,
    monitor_field,
    positions_field,
    put_beside,
    read_beside,
    read_border,
)
from ptyplugin.model.preparation import Orientation, Preparation
from ptyplugin.model.profile import ENERGY_UNITS_EV, LENGTH_UNITS_M, Axis, LiveTable, Profile, Quantity
from ptyplugin.model.progress import ErrorName, Progress, Reconstruction
from ptyplugin.model.recipe import DEFAULT_RECIPE, Option, Recipe, Stage
from ptyplugin.model.ring_correlation import RingCorrelation
from ptyplugin.model.scan import Placement, Scan, Subpixel
from ptyplugin.model.site import Site, SlotNumbers, load_site
from ptyplugin.model.slurm import SlurmNumbers
from ptyplugin.model.snapshot import Snapshot
from ptyplugin.model.sources import (
    CatalogSweep,
    EigerStream,
    HttpSubmit,
    KafkaDocuments,
    PvaChannels,
    SourceTable,
    TiledRuns,
    ZmqDocuments,
)
from ptyplugin.model.verdict import Convergence, Verdict, Word

__all__ = [
    "DEFAULT_RECIPE",
    "ENERGY_UNITS_EV",
    "LENGTH_UNITS_M",
    "Axis",
    "BesideArray",
    "BesideSource",
    "Cancelled",
    "CatalogAway",
    "CatalogError",
    "CatalogSweep",
    "Convergence",
    "DeviceBusy",
    "DeviceError",
    "DeviceName",
    "DiskError",
    "EigerStream",
    "ErrorName",
    "FileFormatError",
    "FileSource",
    "FrameBlock",
    "FrameSource",
    "Frames",
    "FramesError",
    "Geometry",
    "GeometryError",
    "GeometryNumbers",
    "Growth",
    "Hdf5Source",
    "HttpSubmit",
    "Job",
    "JobError",
    "JobParts",
    "KafkaDocuments",
    "LedgerError",
    "LiveTable",
    "MemoryFrames",
    "Option",
    "Orientation",
    "OutsideDataRoots",
    "Placement",
    "Preparation",
    "Profile",
    "ProfileError",
    "Progress",
    "PtypluginError",
    "PvaChannels",
    "Quantity",
    "RanksAway",
    "RanksCrashed",
    "Recipe",
    "RecipeError",
    "Reconstruction",
    "Refusal",
    "Resources",
    "RingCorrelation",
    "RunSource",
    "Scan",
    "ScanError",
    "Site",
    "SiteError",
    "SlotNumbers",
    "SlurmNumbers",
    "Snapshot",
    "SolverError",
    "SourceTable",
    "Stage",
    "Subpixel",
    "TiledRuns",
    "TiledSource",
    "TimeIsUp",
    "Verdict",
    "Word",
    "ZmqDocuments",
    "canonical_json",
    "geometry_numbers",
    "load_site",
    "monitor_field",
    "positions_field",
    "put_beside",
    "ranges_of",
    "read_beside",
    "read_border",
]
