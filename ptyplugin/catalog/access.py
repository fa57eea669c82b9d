"""Who may what in a catalog of several users: what a key needs, what a refusal means, and the access tags of what is written."""

from __future__ import annotations

import re
from typing import Any

import httpx

from ptyplugin.model import CatalogAway

#: What the service's key has to allow; it deletes nothing but arrays of its own that are not whole. ``register`` beside them lets arrays be
#: referred to instead of sent.
NEEDED_SCOPES = ("read:metadata", "read:data", "create:node", "write:metadata", "write:data", "delete:node", "delete:revision")
#: Tags that the server gives to what belongs to one user alone; nobody else can set them.
_OWN = ("user:", "service:")
_REQUIRED = re.compile(r"Requires scopes \[(.*?)\].*?had scopes \[(.*?)\]", re.DOTALL)
_REJECTED = re.compile(r"Access policy rejects the provided access tags\.\s*([^\n]*)")


def is_refusal(error: Exception) -> bool:
    """Whether the catalog said that this key, or its user, may not do that."""
    refused = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in refused


def lacking(error: httpx.HTTPStatusError) -> list[str]:
    """The scopes for want of which the catalog refused; none if that is not why."""
    found = _REQUIRED.search(str(error))
    if found is None:
        return []
    required, had = (re.findall(r"'([\w:]+)'", scopes) for scopes in found.groups())
    return [scope for scope in required if scope not in had]


def refusal(error: httpx.HTTPStatusError) -> str:
    """Why the catalog refused, and what to do: one or two sentences, the first without its beginning."""
    if rejected := _REJECTED.search(str(error)):
        reason = re.sub(r"\s*https?://\S+$", "", rejected[1]).rstrip(".")
        return (
            f"its access policy says: {reason}. Have that changed: the user of the key in TILED_API_KEY has to be an owner of the access "
            "tags of the runs, and they have to allow this user to write."
        )
    scopes = ", ".join(lacking(error))
    if scopes and error.response.status_code == httpx.codes.FORBIDDEN:
        return f"the access tags of that place do not allow {scopes} to the user of the key in TILED_API_KEY: have that changed."
    if scopes:
        return f"the key in TILED_API_KEY does not allow {scopes}. Set it to one that does as well, and start again."
    return "the catalog refuses the key. Check TILED_API_KEY: has the key expired, or was it revoked?"


def inherited(parent: Any) -> list[str] | None:
    """The access tags for what is put into this container: its own; None where the catalog has none, or it is one user's alone."""
    tags = parent.item["attributes"].get("access_tags") or ()
    return [tag for tag in tags if not tag.startswith(_OWN)] or None


def are_others(node: Any, tags: list[str] | None) -> bool:
    """Whether a node that was left has other access tags than ``tags``, those that a result of its run would get now.

    Raises:
        CatalogAway: others may see it, and its run not; Tiled lets nobody but administrators take the last tag away.
    """
    has = inherited(node)
    if has and tags is None:
        path = "/".join(filter(None, node.path_parts))
        raise CatalogAway(
            f"{path} is there already, for who has the access tags {', '.join(has)}, and its run is not for them, or hidden from us: the "
            "result would be seen by too many. Have an administrator of the catalog delete that node, or take its tags away."
        )
    return has != tags
