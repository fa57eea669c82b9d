"""The way to the catalog: a Tiled client that fails at once, in one sentence, and the parts of Tiled that differ by version."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import httpx
from tiled.client import from_context
from tiled.client.container import DEFAULT_STRUCTURE_CLIENT_DISPATCH, Container
from tiled.client.context import CannotPrompt, Context
from tiled.client.utils import ClientError, handle_error
from tiled.structures.core import Spec, StructureFamily
from tiled.utils import OneShotCachedMap

from ptyplugin.catalog.access import NEEDED_SCOPES, inherited, is_refusal, refusal
from ptyplugin.model import CatalogAway, CatalogError, Site

#: Seconds to wait for a connection, and for an answer (a large array is read in pieces of at most 100 MiB).
CONNECT_S = 3.0
ANSWER_S = 60.0
_EXAMPLE = "http://127.0.0.1:8000"
#: Methods that do the same when they are sent twice.
_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class OneTry(httpx.BaseTransport):
    """A transport that turns a failed request into a CatalogError.

    Tiled repeats a request that raises an httpx error for 24 s or more, with the caller waiting; its number of tries is one for the whole
    process. This error is none of httpx, so it is not repeated: who can wait (the publisher) repeats by himself.
    """

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send once; only a connection that turns out to be closed is opened anew.

        Raises:
            CatalogError: the server failed over what was asked.
            CatalogAway: no answer, or the answer says that there can be none now.
        """
        try:
            response = self._send(request)
        except httpx.TransportError as error:
            raise _away(request.url, error) from error
        if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            response.read()
            response.close()
            place = request.url.copy_with(query=None)
            # 500 may be about what was asked for (a file that is gone); the others say that nobody is there to answer.
            kind = CatalogError if response.status_code == httpx.codes.INTERNAL_SERVER_ERROR else CatalogAway
            raise kind(f"the catalog failed ({response.status_code}) at {request.method} {place}: its log says why.")
        return response

    def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return self._inner.handle_request(request)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            # The server closes its connections after a failure: the next request over one of them gets this and needs a new one.
            if request.method not in _REPEATABLE:
                raise
            return self._inner.handle_request(request)

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


def connect(site: Site, api_key: str | None = None) -> Any:
    """A Tiled client for the root of the site's catalog; close it with ``client.context.close()``.

    The key is ``api_key``, else TILED_API_KEY of the environment. Requests of this client are sent once: see OneTry.

    Raises:
        CatalogError: no catalog is named, or what answers is none.
        CatalogAway: it does not answer, or refuses the key.
    """
    if site.tiled_uri is None:
        raise CatalogError(f"no catalog is named: set tiled_uri in the site file, e.g. {_EXAMPLE}.")
    _knock(site.tiled_uri)
    uri = _shown(site.tiled_uri)
    wait = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
    try:
        with catalog_errors(f"open {uri}"):
            context, path = Context.from_any_uri(site.tiled_uri, api_key=api_key, timeout=wait, show_progress=False)
    except (ValueError, KeyError) as error:
        raise CatalogError(f"what answers at {uri} is no Tiled server: check tiled_uri in the site file.") from error
    context.http_client._transport = OneTry(context.http_client._transport)
    try:
        with catalog_errors(f"open {uri}"):
            return from_context(context, node_path_parts=path, remember_me=False)
    except BaseException as error:
        context.close()
        if isinstance(error, RuntimeError | CannotPrompt):
            raise CatalogAway(f"the catalog at {uri} asks for a key: set TILED_API_KEY.") from error
        raise


def _knock(uri: str) -> None:
    """Tiled repeats its first request too, so see first whether anybody is there."""
    try:
        answer = httpx.get(uri, timeout=CONNECT_S)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise CatalogError(f"{_shown(uri)!r} is no address of a catalog: set tiled_uri in the site file, e.g. {_EXAMPLE}.") from error
    except httpx.TransportError as error:
        raise _away(httpx.URL(uri), error) from error
    if answer.is_server_error:
        raise CatalogAway(f"the catalog at {_shown(uri)} does not work ({answer.status_code} {answer.reason_phrase}): its log says why.")


def _shown(uri: str) -> str:
    """The address without what may be secret in it."""
    return re.sub(r"//[^/@]*@", "//", uri.partition("?")[0])


def _away(url: httpx.URL, error: Exception) -> CatalogAway:
    reason = str(error) or type(error).__name__
    return CatalogAway(f"the catalog at {url.scheme}://{url.netloc.decode()} does not answer ({reason}): is it running?")


@contextmanager
def catalog_errors(doing: str) -> Iterator[None]:
    """Turn what Tiled and httpx raise into a CatalogError; ``doing`` completes "cannot ...".

    Raises:
        CatalogError: the catalog refused what was asked.
        CatalogAway: it did not answer, or refuses the key.
    """
    try:
        yield
    except httpx.HTTPStatusError as error:
        if is_refusal(error):
            raise CatalogAway(f"cannot {doing}: {refusal(error)}") from error
        raise CatalogError(f"cannot {doing}: the catalog answers {error}.") from error
    except httpx.TransportError as error:
        raise CatalogAway(f"cannot {doing}: the catalog does not answer ({error or type(error).__name__}).") from error


def scopes_missing(client: Any) -> list[str]:
    """Those of NEEDED_SCOPES that the key of this client does not have; none where the catalog has no keys with scopes.

    Raises:
        CatalogError: it is away, or refuses the key.
    """
    context = client.context
    links = context.server_info.authentication.links
    if links is None or not links.apikey or context.api_key is None:
        return []
    with catalog_errors("ask the catalog what the key allows"):
        has = set(handle_error(context.http_client.get(links.apikey)).json()["scopes"])
        if "inherit" in has:
            has |= {scope for role in context.whoami()["roles"] for scope in role["scopes"]}
    return [scope for scope in NEEDED_SCOPES if scope not in has]


def warm_up() -> None:
    """Import what the first array and table need (Dask, pandas: 2 to 5 s), so that the first result does not wait for it."""
    for family in ("array", "table"):
        _plain_clients()[family]


@cache
def _plain_clients() -> OneShotCachedMap[str, Any]:
    """Tiled's own clients, without those that other packages register for specs; each is imported (pandas, Dask) when first needed."""
    families = ("container", "array", "table", "ragged", "sparse", "awkward", "bytes")
    tiled_has = DEFAULT_STRUCTURE_CLIENT_DISPATCH["numpy"]
    return OneShotCachedMap({family: partial(tiled_has.__getitem__, family) for family in families})


def plain(node: Any) -> Container:
    """The same container as a plain Tiled one, with its data sources, and so its children.

    The clients of bluesky_tiled_plugins take 3 s to import, and give BlueskyRun of layout 2 in the whole process once somebody touched
    ``.v1`` (measured): nothing here may depend on them.
    """
    return Container(node.context, item=node.item, structure_clients=_plain_clients(), include_data_sources=True)


def family(node: Any) -> StructureFamily:
    """What kind of node it is (array, table, container, ...), without importing the clients of the others."""
    return StructureFamily(node.item["attributes"]["structure_family"])


def is_conflict(error: Exception) -> bool:
    """Whether the catalog said 409: there is such a node already."""
    return isinstance(error, ClientError) and error.response.status_code == httpx.codes.CONFLICT


def ensure_container(parent: Container, path: str, specs: list[Spec] | None = None) -> Container:
    """The container at ``path`` ("a/b/c") below ``parent``, made with its parents where missing; ``specs`` mark the last one, if new.

    Raises:
        CatalogAway: it is there, and hidden from this user.
    """
    try:
        return parent[path]
    except KeyError:
        above, _, name = path.strip("/").rpartition("/")
    folder = ensure_container(parent, above) if above else parent
    try:
        return folder.create_container(name, specs=specs, access_tags=inherited(folder))
    except ClientError as error:
        if not is_conflict(error):
            raise
        return existing(folder, name)  # somebody made it a moment ago


def existing(folder: Container, name: str) -> Any:
    """The node that the catalog says is there already.

    Raises:
        CatalogAway: it is hidden from this user.
    """
    try:
        return folder[name]
    except KeyError as error:
        path = "/".join([*folder.path_parts, name])
        raise CatalogAway(
            f"the catalog hides {path}, which is there: its access tags have to allow read:metadata to the user of the key in "
            "TILED_API_KEY."
        ) from error
