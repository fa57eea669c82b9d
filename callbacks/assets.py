"""Resources: from a resource document to the place of each frame."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import quote

from ptyplugin.callbacks.fields import table, text, text_or_none, whole
from ptyplugin.model import FramesError, FrameSource, Hdf5Source, TiledSource

HDF5_MIMETYPE = "application/x-hdf5"
#: Frames that are read through the catalog (documents made from a run in Tiled).
TILED_MIMETYPE = "application/x-tiled"

#: Dataset of the specs whose handlers have it written into them (area_detector_handlers; bluesky_tiled_plugins.MIMETYPE_LOOKUP).
_DATASETS = {
    "AD_HDF5": "/entry/data/data",
    "AD_HDF5_SWMR": "/entry/data/data",
    "AD_HDF5_SWMR_STREAM": "/entry/data/data",
    "AD_HDF5_SWMR_SLICE": "/entry/data/data",
    "AD_HDF5_SINGLE": "/entry/data/data",
    "HDF5": "/entry/data/data",
    "TPX_HDF5": "/entry/instrument/detector/data",
    "XSP3": "/entry/instrument/detector/data",
}
#: A file per frame. The template is given by a document: only a plain one is filled in, and no width that could fill the memory.
_FILE_PER_FRAME = "AD_HDF5_SINGLE"
_TEMPLATE = re.compile(r"%s%s[^%]{0,200}%\d{0,2}(\.\d{1,2})?d[^%]{0,200}")

_MOST_FRAMES_PER_ROW = 1_000_000


@dataclass(frozen=True, slots=True)
class Asset:
    """Where the frames of one resource lie.

    uri: address of the file; of its folder for "series", where each frame has a file of its own
    frames_per_row: frames that one index (ophyd: one point) stands for; None where the data key's shape says it
    problem: for "unreadable", why
    """

    kind: Literal["hdf5", "tiled", "series", "unreadable"]
    uri: str = ""
    dataset: str | None = None
    frames_per_row: int | None = None
    template: str = ""
    filename: str = ""
    problem: str = ""

    def source(self, number: int, dataset: str | None, place: TiledSource) -> tuple[FrameSource, int]:
        """The source of frame ``number`` of this resource, and its number there.

        dataset: named by the datum, goes before the resource's
        place: what this run, stream and key are called in the catalog

        Raises:
            FramesError: frames of this kind are not read.
        """
        if self.kind == "tiled":
            return place, number
        named = dataset or self.dataset
        if self.kind == "unreadable" or named is None:
            raise FramesError(self.problem or f"the frames in {self.uri} come without the name of their dataset.")
        if self.kind == "hdf5":
            return _hdf5_source(self.uri, named), number
        path = self.template % (f"{self.uri}/", self.filename, number)
        return Hdf5Source(uri=_file_uri(path), dataset=named), 0


@lru_cache(maxsize=16)
def _hdf5_source(uri: str, dataset: str) -> Hdf5Source:
    """One object for all frames of a dataset: there may be millions."""
    return Hdf5Source(uri=uri, dataset=dataset)


def asset_of_stream_resource(document: Mapping[str, Any]) -> Asset:
    """The asset of a stream_resource document (those from before event-model 1.20 have a spec instead of a mimetype)."""
    if "mimetype" not in document:
        return asset_of_resource(document)
    mimetype, uri, parameters = text(document["mimetype"]), text(document["uri"]), table(document["parameters"])
    multiplier = parameters.get("multiplier")
    per_row = None if multiplier is None else whole(multiplier, 1, _MOST_FRAMES_PER_ROW)
    if mimetype == TILED_MIMETYPE:
        return Asset("tiled", uri, frames_per_row=per_row)
    if mimetype != HDF5_MIMETYPE:
        return Asset("unreadable", problem=f"frames of the type {mimetype!r} are not read: only {HDF5_MIMETYPE} is.")
    if parameters.get("slice"):
        return Asset("unreadable", problem=f"the frames in {uri} are a slice of their dataset, which is not read: write whole frames.")
    return Asset("hdf5", uri, text_or_none(parameters.get("dataset", parameters.get("path"))), per_row)


def asset_of_resource(document: Mapping[str, Any]) -> Asset:
    """The asset of a resource document (ophyd): root, resource_path, spec and resource_kwargs."""
    spec, options = text(document["spec"]), table(document.get("resource_kwargs", {}))
    per_row = whole(options.get("frame_per_point", options.get("multiplier", 1)), 1, _MOST_FRAMES_PER_ROW)
    path = _joined(text(document.get("root") or ""), text(document["resource_path"]), document.get("path_semantics") == "windows")
    if spec.upper() not in _DATASETS:
        known = ", ".join(sorted(_DATASETS))
        return Asset("unreadable", problem=f"frames of the spec {spec!r} ({path}) are not read; those that are: {known}.")
    if not path.startswith("/"):
        return Asset("unreadable", problem=f"the frames lie at {path!r}, which is no absolute path: set the root of the file plugin.")
    dataset = text_or_none(options.get("dataset", options.get("path"))) or _DATASETS[spec.upper()]
    if spec.upper() != _FILE_PER_FRAME:
        return Asset("hdf5", _file_uri(path), dataset, per_row)
    template, filename = text(options["template"]), text(options["filename"])
    if not _TEMPLATE.fullmatch(template):
        return Asset("unreadable", problem=f"the file template {template!r} is not like '%s%s_%6.6d.h5', so the files cannot be named.")
    return Asset("series", path.rstrip("/"), dataset, per_row, template, filename)


def _joined(root: str, path: str, windows: bool) -> str:
    if windows:
        root, path = root.replace("\\", "/"), path.replace("\\", "/")
        root = root if root.startswith("/") else f"/{root}"
    whole_path = f"{root}/{path}" if root.strip("/") else f"/{path}" if root else path
    return re.sub("/+", "/", whole_path)


def _file_uri(path: str) -> str:
    return f"file://localhost{quote(path)}"
