"""Numbers of a run that are an array in the catalog and no single HDF5 file: positions, times and monitors of a fly scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiled.structures.core import StructureFamily

from ptyplugin.catalog.connection import catalog_errors, family, plain
from ptyplugin.catalog.runs import run_with_uid
from ptyplugin.io.hdf5_samples import flat
from ptyplugin.model import CatalogError, FramesError, Site, TiledSource


def array_samples(client: Any, site: Site, beamline: str, source: TiledSource, start: int, stop: int) -> NDArray[np.float64]:
    """Samples ``start`` to ``stop`` of an array (point, ...) of a run, numbered over all its axes together; fewer while it has no more.

    Raises:
        CatalogError: the catalog is away, or has no such run or array (yet).
        FramesError: the array is none of numbers.
    """
    name = f"{source.stream}/{source.key} of run {source.run_uid}"
    run = run_with_uid(client, site, beamline, source.run_uid)
    with catalog_errors(f"read {name}"):
        try:
            array = None if run is None else plain(run)[source.stream, source.key]
        except KeyError:
            array = None
        if array is None:
            raise CatalogError(f"the catalog has no {name} yet: was the run written there to its end?")
        if family(array) != StructureFamily.array or not array.shape or array.dtype.kind not in "uif":
            raise FramesError(f"{name} holds no numbers of shape (point, ...) in the catalog: name another data key in the profile.")
        return flat(array, start, stop)
