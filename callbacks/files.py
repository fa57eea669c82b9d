"""Reading positions where they lie: in files under the site's data_roots, or in the catalog."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import FramesError, FrameSource, Hdf5Source, Site, TiledSource

#: Samples of an array of a run in the catalog, from the first number to the second; what it raises goes through.
FromCatalog = Callable[[TiledSource, int, int], NDArray[np.float64]]


class FileReader:
    """A PositionReader for the HDF5 files that this site allows to be read, and, with ``from_catalog``, for arrays in the catalog."""

    def __init__(self, site: Site, from_catalog: FromCatalog | None = None) -> None:
        self._site, self._from_catalog = site, from_catalog

    def read(self, source: FrameSource, start: int, stop: int, per_point: int) -> NDArray[np.float64]:
        """See PositionReader."""
        if isinstance(source, TiledSource) and self._from_catalog is not None:
            return self._from_catalog(source, start, stop)
        if not isinstance(source, Hdf5Source):
            raise FramesError(
                "these positions lie in the catalog and in no single HDF5 file, and nobody here asks it: let the service do it."
            )
        # A session whose positions come in events never loads HDF5.
        from ptyplugin.io.hdf5_samples import read_samples

        return read_samples(source, start, stop, per_point, self._site)
