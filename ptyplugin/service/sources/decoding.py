"""Documents from bytes of the network: JSON or msgpack, told apart by their first byte; pickled ones only where the site asks for it.

Nothing that is decoded here can run a program: arrays in msgpack are read from their plain bytes, and of pickled documents only
dictionaries, lists, texts, numbers and arrays are made.
"""

from __future__ import annotations

import io
import json
import pickle  # noqa: TID251  (only by choice of the site, and then only names of _HARMLESS)
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

_LONGEST_NAME = 100
_MB = 1e6
#: First byte of a pickle since protocol 2, and the protocols; in msgpack it would be an empty dictionary with something behind it.
_PICKLED = b"\x80"
_PROTOCOLS = range(2, 10)
_LONGEST_DTYPE = 8
_HARMLESS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("collections", "OrderedDict"),
}


class Undecodable(ValueError):
    """Bytes that are no document; the sentence says why."""


def check_size(size_bytes: int, largest_mb: float) -> None:
    """Refuse what is too large.

    Raises:
        Undecodable: it is.
    """
    if size_bytes > largest_mb * _MB:
        raise Undecodable(
            f"a message of {size_bytes / _MB:.1f} MB is larger than the {largest_mb:g} MB that are taken: let the detector write "
            "its frames to a file, or raise largest_mb of the source."
        )


def decode_published(message: bytes, unpickle: bool) -> tuple[str, Any]:
    """Name and document in a message of ``bluesky.callbacks.zmq.Publisher``: prefix, name and body with blanks between.

    Raises:
        Undecodable: it is no such message.
    """
    parts = message.split(b" ", 2)
    if len(parts) != 3 or len(parts[1]) > _LONGEST_NAME:
        raise Undecodable(
            "a message is not of the form that bluesky's Publisher sends (prefix, name, document): is another program's address given?"
        )
    try:
        name = parts[1].decode()
    except UnicodeDecodeError as error:
        raise Undecodable("the name of a document is no text: is another program's address given?") from error
    return name, decode(parts[2], unpickle)


def decode_pair(body: bytes) -> tuple[str, Any]:
    """Name and document in a message of ``bluesky_kafka.Publisher``: both in one list.

    Raises:
        Undecodable: it is no such message.
    """
    pair = decode(body, unpickle=False)
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
        raise Undecodable("a message is no pair of name and document: is it a topic of bluesky's documents?")
    return pair[0], pair[1]


def decode(body: bytes, unpickle: bool) -> Any:
    """The value in these bytes.

    Raises:
        Undecodable: they are neither JSON nor msgpack; or pickled, and ``unpickle`` is not set.
    """
    if body[:1] == _PICKLED and len(body) > 2 and body[1] in _PROTOCOLS:
        if not unpickle:
            raise Undecodable(
                "a document is pickled, which is not read: let the publisher use serializer=msgpack.dumps; "
                "or set unpickle = true for this source if all who can publish are trusted."
            )
        return _unpickled(body)
    # The bytes are foreign: whatever goes wrong while they are read is wrong with them.
    try:
        if body.lstrip()[:1] in (b"{", b"["):
            return json.loads(body)
        return msgpack.unpackb(body, raw=False, strict_map_key=False, object_hook=_with_arrays)
    except Exception as error:
        raise Undecodable(f"a document is neither JSON nor msgpack ({type(error).__name__}: {str(error)[:100]}).") from error


def _with_arrays(table: dict[Any, Any]) -> Any:
    """A NumPy array or number, as msgpack_numpy writes it, or the dictionary itself."""
    if b"nd" not in table and "nd" not in table:
        return table
    fields = {key.decode() if isinstance(key, bytes) else key: value for key, value in table.items()}
    if not isinstance(fields["nd"], bool) or "type" not in fields or "data" not in fields:
        return table
    kind = fields["type"]
    named = kind.decode() if isinstance(kind, bytes) else kind
    if not isinstance(named, str) or len(named) > _LONGEST_DTYPE:
        raise Undecodable("an array in a document has a type that is not read: only numbers and texts are.")
    dtype = np.dtype(named)
    if dtype.kind not in "biufcSU":
        raise Undecodable(f"an array in a document has the type {named!r}, which is not read: only numbers and texts are.")
    values = np.frombuffer(fields["data"], dtype)
    return values.reshape([int(side) for side in fields["shape"]]) if fields["nd"] else values[0].item()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise Undecodable(f"a pickled document wants {module}.{name}"[:200] + ", which is not made: only plain values and arrays are.")
        return super().find_class(module, name)


def _unpickled(body: bytes) -> Any:
    try:
        return _Unpickler(io.BytesIO(body)).load()
    except Undecodable:
        raise
    except Exception as error:
        raise Undecodable(f"a pickled document cannot be read ({type(error).__name__}).") from error


def as_document(value: Any) -> Mapping[str, Any]:
    """The value, if it is a dictionary.

    Raises:
        Undecodable: it is not.
    """
    if not isinstance(value, dict):
        raise Undecodable(f"a {type(value).__name__} stands where a document is expected.")
    return value
