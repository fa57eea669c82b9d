"""Reading positions from files that lie under the site's data_roots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import FramesError, FrameSource, Hdf5Source, Site


class FileReader:
    """A PositionReader for the HDF5 files that this site allows to be read."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def read(self, source: FrameSource, start: int, stop: int, per_point: int) -> NDArray[np.float64]:
        """See PositionReader."""
        if not isinstance(source, Hdf5Source):
            raise FramesError(
                "these positions lie in the catalog and in no single HDF5 file, which is not read: mount the files of the run."
            )
        # A session whose positions come in events never loads HDF5.
        from ptyplugin.io.hdf5_samples import read_samples

        return read_samples(source, start, stop, per_point, self._site)
