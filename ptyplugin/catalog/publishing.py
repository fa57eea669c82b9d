"""Putting a result file into the catalog: once, whole, beside the raw runs, however often it is tried."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import httpx
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tiled.client.container import Container
from tiled.client.utils import ClientError, client_for_item
from tiled.structures.array import ArrayStructure
from tiled.structures.core import Spec, StructureFamily
from tiled.structures.data_source import Asset, DataSource, Management
from tiled.structures.table import TableStructure
from tiled.utils import ensure_uri

from ptyplugin.catalog.access import are_others, inherited, is_refusal, lacking
from ptyplugin.catalog.connection import catalog_errors, ensure_container, existing, is_conflict, plain
from ptyplugin.catalog.runs import tags_for_result
from ptyplugin.io import read_result
from ptyplugin.model import CatalogError, ErrorName, Progress, Reconstruction, Site, Verdict, geometry_numbers

logger = logging.getLogger(__name__)

#: What marks a node as a result; Tiled's clients choose catalog.client.PtychoReconstruction by it.
SPEC = Spec("PtychoReconstruction", version="1.0")
#: The two states of a result's node: its arrays are on their way, or all there.
PUBLISHING, PUBLISHED = "publishing", "published"

#: Names of the axes of each array of a result.
_AXES = {
    "object": ("object_mode", "y", "x"),
    "probe": ("probe_mode", "probe_y", "probe_x"),
    "object_phase": ("y", "x"),
    "object_amplitude": ("y", "x"),
    "positions_m": ("frame", "yx"),
    "positions_px": ("frame", "yx"),
    "positions_start_px": ("frame", "yx"),
    "background": ("detector_y", "detector_x"),
    "intensities": ("frame",),
    "mask": ("detector_y", "detector_x"),
}
_PROGRESS = pa.schema(
    [
        ("iteration", pa.int64()),
        ("stage", pa.string()),
        ("seconds", pa.float64()),
        *((name, pa.float64()) for name in get_args(ErrorName)),
    ]
)
#: How often metadata are written that another process has written over.
_INSISTING = 3
#: What reading a node that is not whole, or whose file the server cannot see, may raise.
_UNREADABLE = (CatalogError, httpx.HTTPError, KeyError, ValueError)


def publish(client: Any, site: Site, result_path: Path, key: str, folders: dict[str, Container] | None = None) -> Any:
    """Put the result of job ``key`` at ``<beamline>/processed/ptyplugin/<key>``; gives its node.

    Arrays are registered by reference to the file where reading one back proves that the server sees it, else sent. The state "published"
    is set last, so a node in state "publishing" is one that was interrupted: the next call completes it. A published one is left as it is.
    One that showed the job while it ran keeps its last live image.

    folders: the containers of results by their paths, which who publishes many with this client keeps; what is missing is added

    Raises:
        CatalogError: the catalog is away or refuses, or something that is not this job's result has its place.
        FileFormatError: the file is no result.
    """
    reconstruction = read_result(result_path)
    metadata = result_metadata(reconstruction, key)
    path = site.processed_path.format(beamline=metadata["beamline"])
    folders = {} if folders is None else folders
    with catalog_errors(f"publish {result_path.name} at {path}/{key}"):
        if path not in folders:
            folders[path] = ensure_container(plain(client), path)
        tags = tags_for_result(client, site, metadata["beamline"], folders[path], metadata["scan_uid"])
        made = _new_node(folders[path], key, metadata, tags)
        node = _left_node(folders[path], key, metadata) if made is None else made
        if node.metadata["state"] != PUBLISHED:
            if are_others(node, tags) or node.metadata["state"] != PUBLISHING:
                node.update_metadata(metadata, access_tags=tags, drop_revision=True)
            # Each request costs the server the same, whatever it is about: what is known is not asked (decision record 0018).
            present = set(node) if made is None else set()
            _put_arrays(node, reconstruction, result_path, present)
            _put_progress(node, reconstruction.progress, "progress" in present)
            # The state on the way is not worth a revision.
            node.update_metadata({"state": PUBLISHED}, drop_revision=True)
            if made is None:
                _insist(node, {**metadata, "state": PUBLISHED})
        return client_for_item(client.context, client.structure_clients, node.item)


def result_metadata(reconstruction: Reconstruction, key: str) -> dict[str, Any]:
    """Metadata of a result's node, JSON without NaN: what a search asks for at the top, all of the provenance below.

    Raises:
        CatalogError: the provenance does not hold the job.
    """
    provenance = dict(reconstruction.provenance)
    job = provenance.get("job")
    job = dict(json.loads(job) if isinstance(job, str) else job or {})
    if "beamline" not in job or "source" not in job:
        raise CatalogError(f"the result of job {key} does not say which job it is of (provenance.job): reconstruct the scan again.")
    source = job["source"]
    # Positions and intensities are arrays of the node.
    provenance["job"] = {name: value for name, value in job.items() if name not in ("positions_m", "monitor")}
    metadata = {
        "scan_uid": source.get("run_uid"),
        "scan_id": source.get("scan_id"),
        "source": source.get("key") or source.get("name"),
        "job": key,
        "beamline": job["beamline"],
        "purpose": job.get("purpose", "final"),
        "state": PUBLISHING,
        "time": time.time(),
        "recipe": job.get("recipe"),
        "quality": reconstruction.quality,
        **_verdict_metadata(reconstruction.verdict),
        "geometry": {
            **geometry_numbers(reconstruction.geometry).model_dump(mode="json"),
            "wavelength_m": reconstruction.geometry.wavelength_m,
            "object_pixel_m": reconstruction.geometry.object_pixel_m,
        },
        "notes": reconstruction.provenance.get("notes", []),
        "provenance": provenance,
    }
    clean: dict[str, Any] = json_clean(metadata)
    return clean


def _verdict_metadata(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {"verdict": None, "convergence": None, "verdict_reasons": []}
    return {"verdict": verdict.word, "convergence": verdict.convergence, "verdict_reasons": list(verdict.reasons)}


def json_clean(value: Any) -> Any:
    """The same value in JSON's types; NaN and infinity become null.

    Raises:
        TypeError: something that JSON has no form for.
    """
    if isinstance(value, Mapping):
        return {str(name): json_clean(one) for name, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [json_clean(one) for one in value]
    if isinstance(value, np.generic):
        return json_clean(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"{value!r} ({type(value).__name__}) cannot stand in the metadata of a result")


def is_final(metadata: Mapping[str, Any]) -> bool:
    """Whether a node with this metadata is a final result of its run: the image of a job that runs, or of a preview, is none."""
    return metadata.get("purpose") != "live" and metadata.get("state") in (PUBLISHING, PUBLISHED)


def own_node(folder: Container, key: str, metadata: dict[str, Any], tags: list[str] | None = None) -> Container:
    """The node of this job: a new one, or the one that an earlier try, or the job's live image, has left.

    Raises:
        CatalogError: what is there is another one's.
    """
    made = _new_node(folder, key, metadata, tags)
    # An empty container is false.
    return _left_node(folder, key, metadata) if made is None else made


def _new_node(folder: Container, key: str, metadata: dict[str, Any], tags: list[str] | None) -> Container | None:
    """None if there is one."""
    try:
        return folder.create_container(key, metadata=metadata, specs=[SPEC], access_tags=tags)
    except ClientError as error:
        if not is_conflict(error):
            raise
        return None


def _left_node(folder: Container, key: str, metadata: dict[str, Any]) -> Container:
    node: Container = existing(folder, key)
    same = all(node.metadata.get(name) == metadata[name] for name in ("job", "scan_uid", "recipe"))
    if SPEC.name not in {spec.name for spec in node.specs} or not same or "state" not in node.metadata:
        raise CatalogError(
            f"{'/'.join(filter(None, node.path_parts))} in the catalog is not the result of this job: move it away, or submit the job as a "
            "new attempt."
        )
    return node


def _insist(node: Container, metadata: dict[str, Any]) -> None:
    """See that the node says this: the server joins a patch to what it has read before, so that a live image that was on its way meanwhile
    brings back what was there before it.
    """
    for _ in range(_INSISTING):
        node.refresh()
        others, _, _ = node.build_metadata_patches(metadata=metadata)
        if not others:
            return
        node.update_metadata(metadata, drop_revision=True)


def _put_arrays(node: Container, reconstruction: Reconstruction, result_path: Path, present: set[str]) -> None:
    by_reference, is_proven = True, False
    for name in _AXES:
        if getattr(reconstruction, name) is None:  # not in every result
            continue
        values = np.ascontiguousarray(getattr(reconstruction, name))
        if name in present:
            if _is_whole(node, name, values):
                continue
            node.delete_contents(name, external_only=False)
        by_reference = by_reference and _register(node, name, values, result_path, is_proven)
        is_proven = by_reference
        if not by_reference:
            node.write_array(values, key=name, dims=_AXES[name], access_tags=inherited(node))


def _is_whole(node: Container, name: str, values: NDArray[Any]) -> bool:
    try:
        stored = node[name].read()
    except _UNREADABLE as error:
        if is_refusal(error):
            raise
        logger.info("%s of an interrupted publication cannot be read (%s) and is written again", name, error)
        return False
    return stored.dtype == values.dtype and np.array_equal(stored, values)


def _register(node: Container, name: str, values: NDArray[Any], result_path: Path, is_proven: bool) -> bool:
    """Add the array by reference; False, and no trace, if the server then does not read from the file what is in it.

    is_proven: it reads another array from this file
    """
    source = DataSource(
        structure_family=StructureFamily.array,
        structure=ArrayStructure.from_array(values, dims=_AXES[name]),
        mimetype="application/x-hdf5",
        parameters={"dataset": f"/{name}", "swmr": False},
        management=Management.external,
        assets=[Asset(data_uri=ensure_uri(str(result_path.absolute())), is_directory=False, parameter="data_uris", num=0)],
    )
    try:
        array = node.new(StructureFamily.array, [source], key=name, access_tags=inherited(node))
    except ClientError as error:
        if lacking(error) != ["register"]:
            raise
        logger.info("%s is sent to the catalog by value: the key in TILED_API_KEY does not allow register", result_path)
        return False
    if is_proven:
        return True
    # One line through the middle is proof enough: another file would not have it.
    line = tuple(size // 2 for size in values.shape[:-1])
    try:
        if np.array_equal(array[line], values[line]):
            return True
        reason = "the server reads another file at its path"
    except _UNREADABLE as error:
        if is_refusal(error):
            raise
        reason = str(error)
    logger.info("%s is sent to the catalog by value: %s", result_path, reason)
    node.delete_contents(name)
    return False


def _put_progress(node: Container, progress: list[Progress], is_there: bool) -> None:
    rows = [{"iteration": one.iteration, "stage": one.stage, "seconds": one.seconds, **one.errors} for one in progress]
    table = pa.Table.from_pylist(rows, schema=_PROGRESS)
    if is_there:
        written = node["progress"]
    else:
        source = DataSource(structure_family=StructureFamily.table, structure=TableStructure.from_arrow_table(table))
        written = node.new(StructureFamily.table, [source], key="progress", access_tags=inherited(node))
    written.write(table)
