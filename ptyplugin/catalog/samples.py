"""Numbers of a run that are an array in the catalog and no single HDF5 file: positions, times and monitors of a fly scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.catalog.arrays import open_array
from ptyplugin.io.hdf5_samples import flat
from ptyplugin.model import FramesError, Site, TiledSource


def array_samples(client: Any, site: Site, beamline: str, source: TiledSource, start: int, stop: int) -> NDArray[np.float64]:
    """Samples ``start`` to ``stop`` of an array (point, ...) of a run, numbered over all its axes together; fewer while it has no more.

    Raises:
        CatalogError: the catalog is away, or has no such run or array (yet).
        FramesError: the array is none of numbers.
    """
    array = open_array(client, site, beamline, source)
    if array is None or not array.shape or array.dtype.kind not in "uif":
        raise FramesError(
            f"{source.stream}/{source.key} of run {source.run_uid} holds no numbers of shape (point, ...) in the catalog: "
            "name another data key in the profile."
        )
    return flat(array, start, stop)
