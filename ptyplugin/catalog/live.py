"""The image of a job that runs, in the catalog: in the container of its result to be, written in place, block by block."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiled.client.base import BaseClient
from tiled.client.container import Container
from tiled.client.utils import ClientError, handle_error
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.core import StructureFamily
from tiled.structures.data_source import DataSource

from ptyplugin.catalog.access import are_others, inherited
from ptyplugin.catalog.canvas import Canvas, Extent, canvas_for
from ptyplugin.catalog.connection import catalog_errors, ensure_container, is_conflict
from ptyplugin.catalog.publishing import PUBLISHED, PUBLISHING, own_node
from ptyplugin.catalog.runs import tags_for_result
from ptyplugin.jobs import Entry
from ptyplugin.model import Site, Snapshot

#: State of a node whose job runs, or ran until it ended without a result.
LIVE = "live"
#: Name of the container of canvases in a job's container.
CANVASES = "live"
#: Side of a block, pixels: as float32 0.8 MB, for a subscriber takes messages of up to 1 MB unless he says otherwise.
BLOCK_PX = 448


class Blocks(BaseClient):
    """An array that is only written. Tiled's own client imports Dask for it, which the daemon would carry for nothing else."""

    def write(self, values: NDArray[np.float32], number: tuple[int, int]) -> None:
        """Put a block in its place."""
        place, kind = self.item["links"]["block"].format(*number), {"Content-Type": "application/octet-stream"}
        handle_error(self.context.http_client.put(place, content=values.tobytes(), headers=kind))


class LiveImages:
    """Puts the snapshots of one job into the catalog. Used by one thread.

    client: for the root of the site's catalog
    site: says where the beamline's results lie, and its runs
    job: what the ledger has on it
    extent_m: where the scan will go, if it is known
    """

    def __init__(self, client: Any, site: Site, job: Entry, extent_m: Extent | None = None) -> None:
        self._client, self._site, self._job, self._extent_m = client, site, job, extent_m
        self._beamline = str(job.beamline)
        self._path = site.processed_path.format(beamline=self._beamline)
        self._node: Container | None = None
        self._canvas: Canvas | None = None
        self._number = 0
        self._arrays: dict[str, Blocks] = {}
        #: What lies in the catalog, by array; NaN where that is not known.
        self._written: dict[str, NDArray[np.float32]] = {}

    def put(self, snapshot: Snapshot) -> int:
        """Show this snapshot; how many blocks were sent. Nothing is done once the job's result is on its way.

        Raises:
            CatalogError: the catalog is away or refuses. The next snapshot makes up for it.
        """
        with catalog_errors(f"show job {snapshot.job} in {self._path}"):
            node = self._node = self._open() if self._node is None else self._node
            if node.metadata["state"] in (PUBLISHING, PUBLISHED):
                return 0
            corner = self._canvas.corner(snapshot) if self._canvas else None
            if self._canvas is None or corner is None:
                self._canvas = self._begin(node, canvas_for(snapshot, self._extent_m, self._canvas))
                corner = self._canvas.corner(snapshot) or (0, 0)
            window = tuple(slice(first, first + size) for first, size in zip(corner, snapshot.object.shape, strict=True))
            sent = self._send(window, _images(snapshot.object))
            said = self._said(snapshot, self._canvas, window)
            # Nothing but this: the job's result may be published by another process at this moment.
            node.update_metadata({"live": said}, drop_revision=True)
            return sent

    def end(self, state: str, sentence: str | None) -> None:
        """The job ended without a result, in this state: the last image stays, if there is one.

        Raises:
            CatalogError: the catalog is away or refuses.
        """
        with catalog_errors(f"say at {self._path}/{self._job.key} that its job is {state}"):
            node = self._found() if self._node is None else self._node
            if node is not None and node.metadata["state"] != PUBLISHED:
                node.update_metadata({"state": state, "sentence": sentence}, drop_revision=True)
            self._node = None

    def _open(self) -> Container:
        folder = ensure_container(lean(self._client), self._path)
        tags = tags_for_result(self._client, self._site, self._beamline, folder, self._job.run_uid)
        node = own_node(folder, self._job.key, live_metadata(self._job), tags)
        if node.metadata["state"] != PUBLISHED and are_others(node, tags):
            node.update_metadata(access_tags=tags, drop_revision=True)
        self._number = int(node.metadata.get("live", {}).get("current", 0))
        if node.metadata["state"] not in (LIVE, PUBLISHING, PUBLISHED):
            # It failed or was cancelled, and has begun again.
            node.update_metadata({"state": LIVE, "sentence": None}, drop_revision=True)
        return node

    def _found(self) -> Container | None:
        """The node that an earlier daemon has left, if it is this job's."""
        try:
            node: Container = lean(self._client)[f"{self._path}/{self._job.key}"]
        except KeyError:
            return None
        return node if node.metadata.get("job") == self._job.key and "state" in node.metadata else None

    def _begin(self, node: Container, canvas: Canvas) -> Canvas:
        """Make the arrays of a canvas, empty: nothing points to it yet."""
        canvases, here = ensure_container(node, CANVASES), None
        while here is None:
            self._number += 1
            try:
                here = canvases.create_container(str(self._number), access_tags=inherited(node))
            except ClientError as error:
                # A daemon that was killed may have begun with it.
                if not is_conflict(error):
                    raise
        chunks = tuple(tuple(block.stop - block.start for block in _blocks(size)) for size in canvas.shape)
        dtype = BuiltinDtype.from_numpy_dtype(np.dtype(np.float32))
        structure = ArrayStructure(shape=canvas.shape, chunks=chunks, dims=("y", "x"), data_type=dtype)
        for name in _images(np.zeros((1, 1), np.complex64)):
            source = DataSource(structure=structure, structure_family=StructureFamily.array)
            self._arrays[name] = here.new(StructureFamily.array, [source], key=name, access_tags=inherited(node))
            self._written[name] = np.zeros(canvas.shape, np.float32)
        return canvas

    def _send(self, window: tuple[slice, ...], images: dict[str, NDArray[np.float32]]) -> int:
        """Write the blocks that are others than before; those of all arrays in turn, so that each grows at the same pace."""
        now = {name: np.zeros_like(before) for name, before in self._written.items()}
        for name, values in images.items():
            now[name][window] = values
        height, width = next(iter(now.values())).shape
        blocks = ((i, j, np.s_[y, x]) for i, y in enumerate(_blocks(height)) for j, x in enumerate(_blocks(width)))
        return sum(self._send_block(name, (i, j), block, now[name][block]) for i, j, block in blocks for name in now)

    def _send_block(self, name: str, number: tuple[int, int], block: tuple[slice, slice], values: NDArray[np.float32]) -> bool:
        """Whether it is another one than before, and was written."""
        before = self._written[name]
        if np.array_equal(values, before[block]):
            return False
        before[block] = np.nan
        self._arrays[name].write(values, number)
        before[block] = values
        return True

    def _said(self, snapshot: Snapshot, canvas: Canvas, window: tuple[slice, ...]) -> dict[str, Any]:
        errors = {name: value if math.isfinite(value) else None for name, value in snapshot.errors.items()}
        return {
            "current": self._number,
            "stage": snapshot.stage,
            "iteration": snapshot.iteration,
            "iterations": snapshot.iterations,
            "frames": snapshot.frames,
            "error": errors.get("error"),
            "errors": errors,
            "updated": snapshot.taken_s,
            "window": [[part.start, part.stop] for part in window],
            "pixel_m": list(canvas.pixel_m),
            "origin_m": list(canvas.origin_m),
            "frame_shape": list(snapshot.probe.shape[-2:]),
        }


def lean(node: Any) -> Container:
    """The same container, whose arrays are only written."""
    return Container(node.context, item=node.item, structure_clients={"container": Container, "array": Blocks})


def live_metadata(job: Entry) -> dict[str, Any]:
    """Metadata of a node whose job runs: what a search asks for, as of a result."""
    return {
        "scan_uid": job.run_uid,
        "scan_id": job.scan_id,
        "source": job.source,
        "job": job.key,
        "beamline": job.beamline,
        "purpose": job.purpose,
        "state": LIVE,
        "time": time.time(),
        "recipe": job.recipe,
        "quality": {"error": None},
        "verdict": None,
        "convergence": None,
        "verdict_reasons": [],
        "notes": list(job.notes),
    }


def _images(wave: NDArray[np.complex64]) -> dict[str, NDArray[np.float32]]:
    """The arrays of a canvas by name, for a wave (y, x); as of a result."""
    return {"object_phase": np.angle(wave).astype(np.float32), "object_amplitude": np.abs(wave).astype(np.float32)}


def _blocks(size: int) -> Iterator[slice]:
    """The blocks along an axis."""
    return (slice(start, min(start + BLOCK_PX, size)) for start in range(0, size, BLOCK_PX))
