"""An array of a run in the catalog, read by plain requests: Tiled's own client of arrays imports Dask and pandas for them."""

from __future__ import annotations

from math import prod
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray
from tiled.client.utils import MSGPACK_MIME_TYPE, ClientError, handle_error, retry_context
from tiled.structures.array import ArrayStructure
from tiled.structures.core import StructureFamily

from ptyplugin.catalog.connection import catalog_errors
from ptyplugin.catalog.runs import run_with_uid
from ptyplugin.model import CatalogError, Site, TiledSource

#: Bytes asked for at once: large enough to fill the line, small beside a worker's memory.
REQUEST_BYTES = 32 * 2**20
_BYTES = "application/octet-stream"


class AheadOfCatalog(CatalogError):
    """The file of an array has more than the catalog knows of, in another shape: Tiled gives nothing of it now."""


class CatalogArray:
    """An array (row, ...) as the catalog describes it: its shape, the type of its numbers, and parts of it.

    context: of a Tiled client
    item: the node, as the catalog gives it
    name: for people

    Raises:
        CatalogError: it is described in another way than an array is.
    """

    def __init__(self, context: Any, item: dict[str, Any], name: str) -> None:
        self._context, self.name = context, name
        try:
            structure, self._link = ArrayStructure.from_json(item["attributes"]["structure"]), httpx.URL(item["links"]["full"])
            self.shape: tuple[int, ...] = tuple(map(int, structure.shape))
            self.dtype: np.dtype[Any] = structure.data_type.to_numpy_dtype()
        except (KeyError, TypeError, ValueError) as error:
            raise CatalogError(f"what the catalog says of {name} is no array ({error!r}): which version of Tiled is its server?") from error

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """These rows, in requests of at most REQUEST_BYTES, or of one row.

        Raises:
            CatalogError: see ``part``.
        """
        begin, end, _ = rows.indices(len(self))
        most = max(1, REQUEST_BYTES // max(1, prod(self.shape[1:]) * self.dtype.itemsize))
        parts = [self.part((first, min(first + most, end))) for first in range(begin, end, most)]
        return np.concatenate([np.empty((0, *self.shape[1:]), self.dtype), *parts])

    def __len__(self) -> int:
        return self.shape[0]

    def part(self, *ranges: tuple[int, int]) -> NDArray[Any]:
        """What lies in these half-open ranges along the first axes, and all along the others, by one request; it is read-only.

        Raises:
            CatalogError: the catalog is away, does not give it, or gives something else.
            AheadOfCatalog: it does not give it now, since the array's file goes on.
        """
        shape = (*(end - begin for begin, end in ranges), *self.shape[len(ranges) :])
        wanted = {"slice": ",".join(f"{begin}:{end}" for begin, end in ranges), "expected_shape": ",".join(map(str, shape))}
        with catalog_errors(f"read {self.name}"):
            try:
                content = _get(self._context, self._link.copy_merge_params(wanted), _BYTES).content
            except ClientError as error:
                if error.response.status_code != httpx.codes.UNPROCESSABLE_ENTITY:
                    raise
                raise AheadOfCatalog(
                    f"the catalog gives nothing of {self.name} now: the file behind it has more than the catalog knows of, and another "
                    "number of axes than the array there. It can be read in a pause and after the run; mount the file to have it live."
                ) from error
        if len(content) != prod(shape) * self.dtype.itemsize:
            raise CatalogError(
                f"of {self.name} the catalog gave {len(content)} bytes instead of {prod(shape) * self.dtype.itemsize}: was the run written "
                "anew meanwhile?"
            )
        return np.frombuffer(content, self.dtype).reshape(shape)


def open_array(client: Any, site: Site, beamline: str, source: TiledSource) -> CatalogArray | None:
    """The array that ``source`` names; None if it is something else than an array. One request where the run lies under its uid.

    Raises:
        CatalogError: the catalog is away, or has no such run, or nothing of that name in it (yet).
    """
    name, folder = f"{source.stream}/{source.key} of run {source.run_uid}", site.raw_path.format(beamline=beamline)
    with catalog_errors(f"open {name}"):
        # TiledWriter names a run by its uid; who else has put it there may have named it otherwise.
        item = None if "/" in source.run_uid else _item(client, f"{folder}/{source.run_uid}/{source.stream}/{source.key}")
        if item is None:
            run = run_with_uid(client, site, beamline, source.run_uid)
            if run is None:
                raise CatalogError(f"there is no run {source.run_uid} in {folder} of the catalog.")
            item = None if run.item["id"] == source.run_uid else _item(run, f"{source.stream}/{source.key}")
    if item is None:
        raise CatalogError(f"the catalog has no {name} (yet): was the run written there to its end?")
    try:
        family = item["attributes"]["structure_family"]
    except (KeyError, TypeError) as error:
        raise CatalogError(f"what the catalog says of {name} is no node ({error!r}): which version of Tiled is its server?") from error
    return CatalogArray(client.context, item, name) if family == StructureFamily.array else None


def _item(node: Any, path: str) -> dict[str, Any] | None:
    """What the catalog says of the node at ``path`` below another, if there is one."""
    names = path.strip("/").split("/")
    if {"", ".", ".."} & set(names):
        return None
    below = "/".join(quote(name, safe="") for name in names)
    try:
        answer = _get(node.context, httpx.URL(f"{node.uri.rstrip('/')}/{below}"), MSGPACK_MIME_TYPE)
    except ClientError as error:
        if error.response.status_code == httpx.codes.NOT_FOUND:
            return None
        raise
    try:
        found: dict[str, Any] = answer.json()["data"]
    except (KeyError, TypeError, ValueError) as error:
        raise CatalogError(f"what the catalog says of {path} cannot be read ({error!r}): is it a Tiled server?") from error
    return found


def _get(context: Any, link: httpx.URL, kind: str) -> Any:
    try:
        for attempt in retry_context():
            with attempt:
                return handle_error(context.http_client.get(link, headers={"Accept": kind}))
    except KeyError as error:
        raise CatalogError(f"the catalog refers to something that is gone: {error.args[0]}") from error
    raise CatalogError(f"the catalog was not asked for {link.path}.")
