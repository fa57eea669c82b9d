"""The error tree. Every message is one sentence or two: what, the value with its unit, where from, what to do.

::

    PtypluginError
    ├── GeometryError      (ValueError)        energy, distance, pixel size that cannot be
    ├── ScanError          (ValueError)        positions: none, not finite, constant, not matching the frames
    ├── FramesError        (OSError)           frames that cannot be read: file missing, truncated, wrong shape
    │   └── OutsideDataRoots (PermissionError) a file that the site does not allow to be read
    ├── RecipeError        (ValueError)        unknown algorithm or option, text that is no recipe
    ├── ProfileError       (ValueError)        unknown profile, wrong key in it, key not found in the documents
    ├── SiteError          (ValueError)        wrong site configuration
    ├── JobError           (ValueError)        a job that cannot be read or written
    ├── FileFormatError    (ValueError)        a CXI or result file that is not what it should be
    ├── DiskError          (OSError)           a disk that cannot be written now: full, read-only, away
    ├── CatalogError       (ConnectionError)   the catalog is away, refuses, or has no such run
    │   └── CatalogAway                        it does not answer, fails, or refuses the key: whatever it is asked for
    ├── SolverError        (RuntimeError)      the reconstruction failed
    │   ├── Cancelled                          somebody asked for it to stop
    │   ├── TimeIsUp                           it took longer than the site allows, or fell silent
    │   ├── RanksAway                          processes of the solver cannot be started: no fault of the job
    │   └── RanksCrashed                       a process of the solver was killed or died: worth another try
    ├── LedgerError        (RuntimeError)      the ledger is in use, damaged, from a newer version, or its disk is full
    └── DeviceError        (RuntimeError)      a device was asked for that is not there
        └── DeviceBusy                         another process has it
"""

from __future__ import annotations

import os
import sysconfig
from traceback import walk_tb

#: Code in here is ours; a visitor's is outside, and not among what is installed.
_PACKAGE = "ptyplugin"
_INSTALLED = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "purelib", "platlib"))


class PtypluginError(Exception):
    """Base of all errors that ptyplugin raises on purpose; ``str(error)`` is fit for a visitor at night."""

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show in place of a traceback: the sentence, and the line of the user's file that met the error."""
        name = f"{type(self).__name__}: {self}"
        called_from = None
        for frame, line in walk_tb(self.__traceback__):
            if str(frame.f_globals.get("__name__", "")).partition(".")[0] == _PACKAGE:
                break
            file = frame.f_code.co_filename
            # A RunEngine is between the visitor's line and a plan of ours.
            if not file.startswith(_INSTALLED):
                called_from = f"  (called in {file}, line {line})" if os.path.exists(file) else None
        return [name, called_from] if called_from else [name]


class GeometryError(PtypluginError, ValueError):
    """Energy, distance, pixel size or frame shape that cannot be."""


class ScanError(PtypluginError, ValueError):
    """Positions: none, not finite, constant, or not matching the frames."""


class FramesError(PtypluginError, OSError):
    """Frames that cannot be read: a missing file, a truncated file, a wrong shape."""


class OutsideDataRoots(FramesError, PermissionError):
    """A file outside the folders that the site allows to be read (``data_roots``)."""


class RecipeError(PtypluginError, ValueError):
    """An unknown algorithm or option, or a text that is no recipe."""


class ProfileError(PtypluginError, ValueError):
    """An unknown profile, a wrong key in it, or a key that the documents do not have."""


class SiteError(PtypluginError, ValueError):
    """A wrong site configuration."""


class JobError(PtypluginError, ValueError):
    """A job that cannot be read or written."""


class FileFormatError(PtypluginError, ValueError):
    """A CXI or result file that is not what it should be."""


class DiskError(PtypluginError, OSError):
    """A disk that cannot be written now: full, read-only or away. No fault of the job that wanted to."""


class CatalogError(PtypluginError, ConnectionError):
    """The catalog is away, refuses, or has no such run."""


class CatalogAway(CatalogError):
    """The catalog does not answer, fails, or refuses the key, whatever it is asked for. No fault of the job that asked."""


class SolverError(PtypluginError, RuntimeError):
    """The reconstruction failed."""


class Cancelled(SolverError):
    """Somebody asked for the reconstruction to stop."""


class TimeIsUp(SolverError):
    """The reconstruction took longer than the site allows, or fell silent; its last checkpoint is kept."""


class RanksAway(SolverError):
    """The processes of the solver cannot be started, or do not find each other. No fault of the job that needs them."""


class RanksCrashed(SolverError):
    """A process of the solver was killed or died: worth another try."""


class LedgerError(PtypluginError, RuntimeError):
    """The ledger of jobs is in use by another daemon, damaged, from a newer version, or cannot be written."""


class DeviceError(PtypluginError, RuntimeError):
    """A device was asked for that is not there."""


class DeviceBusy(DeviceError):
    """A device was asked for that another process has. No fault of the job that asked."""
