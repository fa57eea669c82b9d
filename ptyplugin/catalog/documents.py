"""A run's documents, rebuilt from what the catalog holds: metadata, tables, data sources. Nothing is asked of the server beyond that.

What TiledWriter keeps (bluesky-tiled-plugins 2.0.12, ``_RunWriter``) and what is lost with it:

* A stream is a container; its metadata is the first descriptor, later ones are ``_config_updates``.
* Scalars and short arrays of events are rows of ``internal`` (or ``internal_0``, ... above 1024 columns), in the order of the
  events; longer arrays of events are arrays of their own, in the same order.
* A detector's frames are one array over all its files. Which frame belongs to which seq_num is *not* kept. As many events as frames pair in
  their order, and so a repeated seq_num (a rewind) finds its frame; any other number pairs frame i with seq_num i + 1, as Tiled does.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Any

import dask
import numpy as np
from tiled.client.container import Container
from tiled.structures.core import StructureFamily

from ptyplugin.catalog.connection import catalog_errors, family, plain
from ptyplugin.model import CatalogError

logger = logging.getLogger(__name__)

Document = tuple[str, dict[str, Any]]

#: Of a stream_resource whose frames are read through the catalog, with its address.
TILED_MIMETYPE = "application/x-tiled"
TILED_URI = "tiled:{run_uid}/{stream}/{key}"
_HDF5 = "application/x-hdf5"


def run_documents(run: Any) -> Iterator[Document]:
    """The documents of a run: start; per stream descriptors, stream_resource, stream_datum, event_page; stop, if the run has one.

    run: the run's node, of any Tiled client; written by TiledWriter.

    An array in one HDF5 file comes as a stream_resource with the file's address; any other array (several files, another format, arrays
    from events) with mimetype application/x-tiled and the address ``tiled:<run uid>/<stream>/<key>``.

    Raises:
        CatalogError: the catalog is away, or the node is no run of this layout.
    """
    node = plain(run)
    start = node.metadata.get("start")
    versions = [spec.version or "" for spec in node.specs if spec.name == "BlueskyRun"]
    if start is None or not versions or not versions[0].startswith("3."):
        raise CatalogError(f"{'/'.join(node.path_parts)} is no run that TiledWriter wrote (BlueskyRun 3): name a run of the raw catalog.")
    with catalog_errors(f"read run {start['uid']}"):
        yield "start", dict(start)
        for name, stream in _streams(node):
            yield from _stream_documents(start["uid"], name, stream)
    if stop := node.metadata.get("stop"):
        yield "stop", dict(stop)


def _streams(run: Container) -> Iterator[tuple[str, Container]]:
    """Streams by name; before mid-2025 they lay in a container ``streams``."""
    streams = dict(run.items())
    old = streams.get("streams")
    if old is not None and "BlueskyEventStream" not in {spec.name for spec in old.specs}:
        streams = dict(old.items())
    yield from streams.items()


def _stream_documents(run_uid: str, name: str, stream: Container) -> Iterator[Document]:
    parts = dict(stream.items())
    descriptors = descriptors_of(run_uid, name, stream.metadata)
    rows = _rows([part for key, part in parts.items() if family(part) == StructureFamily.table and key.startswith("internal")])
    arrays = {key: part for key, part in parts.items() if family(part) == StructureFamily.array}
    for descriptor in descriptors:
        for key in arrays:
            # Arrays from events are referred to here, which the data key must say.
            descriptor["data_keys"].get(key, {}).setdefault("external", "STREAM:")
        yield "descriptor", descriptor
    for key, array in arrays.items():
        if key in descriptors[0]["data_keys"]:
            yield from _array_documents(run_uid, name, key, array, descriptors[0], rows)
    yield from event_pages(descriptors, rows)


def descriptors_of(run_uid: str, name: str, metadata: Any) -> list[dict[str, Any]]:
    """The first descriptor and those that changed the configuration during the run."""
    stored = copy.deepcopy(dict(metadata))
    updates = stored.pop("_config_updates", [])
    object_keys: dict[str, list[str]] = {}
    for key, described in stored.get("data_keys", {}).items():
        if "object_name" in described:
            object_keys.setdefault(described["object_name"], []).append(key)
    descriptors = [{**stored, "name": name, "run_start": run_uid, "object_keys": object_keys}]
    for update in updates:
        following = copy.deepcopy(descriptors[-1])
        following.update({field: update[field] for field in ("uid", "time") if field in update})
        for device, settings in update.get("configuration", {}).items():
            for part in ("data", "timestamps"):
                following["configuration"][device][part].update(settings.get(part, {}))
        descriptors.append(following)
    return descriptors


def _rows(tables: list[Any]) -> dict[str, list[Any]]:
    """Columns of the event table in the order of the events; a row that was sent twice counts once."""
    columns: dict[str, list[Any]] = {}
    for table in tables:
        # Else cells that hold lists come as what str() makes of them.
        with dask.config.set({"dataframe.convert-string": False}):
            frame = table.read()
        columns.update({str(name): [_builtin(cell) for cell in frame[name]] for name in frame.columns})
    pairs = list(zip(columns.get("seq_num", []), columns.get("time", []), strict=True))
    first = {pair: row for row, pair in reversed(list(enumerate(pairs)))}
    kept = sorted(first.values(), key=lambda row: columns["time"][row])
    return {name: [cells[row] for row in kept] for name, cells in columns.items()}


def _builtin(cell: Any) -> Any:
    if isinstance(cell, np.ndarray | np.generic):
        cell = cell.tolist()
    return [_builtin(one) for one in cell] if isinstance(cell, list) else cell


def _array_documents(
    run_uid: str, stream: str, key: str, array: Any, descriptor: dict[str, Any], rows: dict[str, list[Any]]
) -> Iterator[Document]:
    uid = f"{descriptor['uid']}-{key}"
    count, frames_per_datum = datums_of(array.shape, descriptor["data_keys"][key].get("shape") or [])
    mimetype, uri, parameters = place_of(array.data_sources(), TILED_URI.format(run_uid=run_uid, stream=stream, key=key))
    parameters["multiplier"] = frames_per_datum
    resource = {"uid": uid, "data_key": key, "mimetype": mimetype, "uri": uri, "parameters": parameters, "run_start": run_uid}
    yield "stream_resource", resource
    seq_nums = rows.get("seq_num", [])
    if len(seq_nums) != count:
        if seq_nums:
            logger.warning("run %s has %d events and %d data of %s: they are paired by number", run_uid, len(seq_nums), count, key)
        seq_nums = list(range(1, count + 1))
    breaks = [place for place, (one, following) in enumerate(pairwise(seq_nums), start=1) if following != one + 1]
    for begin, end in pairwise([0, *breaks, count] if count else []):
        first = seq_nums[begin]
        yield (
            "stream_datum",
            {
                "uid": f"{uid}/{begin}",
                "stream_resource": uid,
                "descriptor": descriptor["uid"],
                "indices": {"start": begin, "stop": end},
                "seq_nums": {"start": first, "stop": first + end - begin},
            },
        )


def place_of(sources: Any, through_catalog: str) -> tuple[str, str, dict[str, Any]]:
    """Mimetype, address and parameters of a stream_resource: the file if it is one whole HDF5 dataset, else through the catalog."""
    source = sources[0] if sources else None
    if source is not None and source.mimetype == _HDF5 and len(source.assets) == 1:
        parameters = {name: value for name, value in source.parameters.items() if value is not None}
        if "dataset" in parameters and not parameters.keys() & {"slice", "squeeze"}:
            return _HDF5, source.assets[0].data_uri, parameters
    return TILED_MIMETYPE, through_catalog, {}


def datums_of(shape: tuple[int, ...], datum_shape: list[int]) -> tuple[int, int]:
    """How many data (one an event) an array holds, stacked along a new axis or joined along their first, and how many frames each has."""
    if len(shape) == len(datum_shape):
        return int(shape[0]) // max(int(datum_shape[0]), 1), int(datum_shape[0])
    return int(shape[0]), prod(int(side) for side in shape[1:-2])


def event_pages(descriptors: list[dict[str, Any]], rows: dict[str, list[Any]], first: int = 0) -> Iterator[Document]:
    """One page per descriptor: an event belongs to the last descriptor that is not younger than it.

    rows: columns of the event table; first: how many events there were before these
    """
    times = rows.get("time", [])
    begins = [0]
    for descriptor in descriptors[1:]:
        begins.append(next((row for row, at in enumerate(times) if at >= descriptor["time"]), len(times)))
    keys = [name for name in rows if name not in ("seq_num", "time") and not name.startswith("ts_")]
    for descriptor, (begin, end) in zip(descriptors, pairwise([*begins, len(times)]), strict=True):
        if begin < end:
            page = {
                "descriptor": descriptor["uid"],
                "uid": [f"{descriptor['uid']}/{first + row}" for row in range(begin, end)],
                "seq_num": rows["seq_num"][begin:end],
                "time": times[begin:end],
                "data": {key: rows[key][begin:end] for key in keys},
                "timestamps": {key: rows[f"ts_{key}"][begin:end] for key in keys},
                "filled": {},
            }
            yield "event_page", page
