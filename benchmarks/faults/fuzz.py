"""Bytes and documents that nobody meant: the decoder refuses them with a sentence, the collector passes them over."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.faults.table import Row
from benchmarks.scan_burst import scan_documents
from ptyplugin.profiles import load_profile
from ptyplugin.service.sources.collecting import Collecting
from ptyplugin.service.sources.decoding import Undecodable, decode_published
from ptyplugin.service.sources.state import SourceState

_NAMES = ("start", "descriptor", "event", "event_page", "resource", "datum", "datum_page", "stream_resource", "stream_datum", "stop")
_PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20)
_VALUES = st.recursive(
    _PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4), max_leaves=12
)


def fuzz(examples: int) -> list[Row]:
    """So many examples of each."""
    return [run_examples(check, examples) for check in (bytes_to_the_decoder, documents_to_the_collector)]


def run_examples(check: Callable[..., None], examples: int) -> Row:
    """A row; what an example broke stands in its note."""
    begun, counted, failed = time.monotonic(), 0, ""

    def one(**values: Any) -> None:
        nonlocal counted
        counted += 1
        check(**values)

    quiet = settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    try:
        quiet(given(**STRATEGIES[check.__name__])(one))()
    except Exception as error:
        failed = f"{type(error).__name__}: {error}".splitlines()[0]
    return Row(f"fuzz: {check.__name__.replace('_', ' ')}", counted, counted, int(bool(failed)), time.monotonic() - begun, failed)


def _packed(value: Any) -> bytes:
    try:
        return bytes(msgpack.packb(value))
    except (OverflowError, ValueError):
        return b"\xc1"


_BODIES = st.binary(max_size=200) | _VALUES.map(_packed) | _VALUES.map(lambda value: json.dumps(value, default=str).encode())


def bytes_to_the_decoder(message: bytes, unpickle: bool) -> None:
    """A document or a sentence."""
    try:
        said = decode_published(message, unpickle)[0]
    except Undecodable as error:
        said = str(error)
    assert isinstance(said, str)


#: What happens to a document on its way.
_HARMS = st.sampled_from(["keep", "keep", "keep", "drop", "twice", "later", "garbage", "key gone", "value", "other name"])


def documents_to_the_collector(harms: list[tuple[str, Any, str]]) -> None:
    """A run whose documents are lost, doubled, exchanged and spoilt; after it a good one, which must be whole."""
    collecting = Collecting([load_profile("sim")], SourceState("fuzz"))
    spoilt: list[tuple[Any, Any]] = []
    later: list[tuple[Any, Any]] = []
    for (name, document), (harm, value, other) in zip(_documents("bad"), harms, strict=False):
        spoilt += _spoilt(name, document, harm, value, other)
        if harm == "later":
            later.append((name, document))
    for name, document in [*spoilt, *later]:
        collecting.take(name, document)
    ended = [run for document in _documents("good") for run in collecting.take(*document)]
    assert [run.uid for run in ended] == ["good"]
    assert ended[0].is_whole()


def _documents(uid: str) -> list[tuple[str, dict[str, Any]]]:
    return list(scan_documents(uid, 1, Path("/a.h5"), 1.0, 4, 8))


def _spoilt(name: str, document: dict[str, Any], harm: str, value: Any, other: str) -> list[tuple[Any, Any]]:
    keys = sorted(document)
    chosen = keys[len(str(value)) % len(keys)]
    return {
        "keep": [(name, document)],
        "drop": [],
        "later": [],
        "twice": [(name, document), (name, document)],
        "garbage": [(name, value)],
        "key gone": [(name, {key: each for key, each in document.items() if key != chosen})],
        "value": [(name, {**document, chosen: value})],
        "other name": [(other, document)],
    }[harm]


_MESSAGES = st.tuples(st.sampled_from(_NAMES), _BODIES).map(lambda pair: b" " + pair[0].encode() + b" " + pair[1])
#: Check -> what it is given.
STRATEGIES: dict[str, dict[str, Any]] = {
    "bytes_to_the_decoder": {"message": st.binary(max_size=200) | _MESSAGES, "unpickle": st.booleans()},
    "documents_to_the_collector": {"harms": st.lists(st.tuples(_HARMS, _VALUES, st.sampled_from(_NAMES)), min_size=13, max_size=13)},
}
