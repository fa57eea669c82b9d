"""Documents from the network: what is read, what is refused, and that nothing of it runs."""

from __future__ import annotations

import json
import os
import pickle  # noqa: TID251  (what a publisher may send)
from contextlib import suppress
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptyplugin.profiles import load_profile
from ptyplugin.service.sources.collecting import Collecting
from ptyplugin.service.sources.decoding import Undecodable, check_size, decode, decode_pair, decode_published
from ptyplugin.service.sources.state import SourceState

EXAMPLES = int(os.environ.get("PTYPLUGIN_FUZZ_EXAMPLES", "100"))
DOCUMENT = {"uid": "run", "data": {"y": 0.5, "list": [1, 2], "text": "µm", "none": None}}
FUZZ = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(
    "dumps", [msgpack.packb, lambda value: json.dumps(value).encode(), lambda value: b" \n" + json.dumps(value).encode()]
)
def test_json_and_msgpack_are_told_apart(dumps: Any) -> None:
    assert decode_published(b" ".join([b"prefix", b"start", dumps(DOCUMENT)]), unpickle=False) == ("start", DOCUMENT)
    assert decode_pair(dumps(["stop", DOCUMENT])) == ("stop", DOCUMENT)


def test_arrays_come_as_msgpack_numpy_writes_them() -> None:
    counts = np.arange(12, dtype=np.uint16).reshape(3, 4)
    sent = {"counts": counts, "number": np.float64(0.25), "complex": 1 + 2j, "text": np.str_("a")}
    found = decode(msgpack.packb(sent, default=msgpack_numpy.encode), unpickle=False)
    np.testing.assert_array_equal(found["counts"], counts)
    assert found["counts"].dtype == np.uint16
    assert found["number"] == 0.25


def test_arrays_of_objects_are_refused() -> None:
    body = msgpack.packb({"a": np.array([{"x": 1}], dtype=object)}, default=msgpack_numpy.encode)
    with pytest.raises(Undecodable, match="not read"):
        decode(body, unpickle=False)


def test_pickles_are_refused_unless_the_site_asks_for_them() -> None:
    body = pickle.dumps({**DOCUMENT, "counts": np.arange(6).reshape(2, 3), "one": np.float32(2)})
    with pytest.raises(Undecodable, match=r"a document is pickled.*msgpack\.dumps.*unpickle = true"):
        decode(body, unpickle=False)
    found = decode(body, unpickle=True)
    assert found["data"] == DOCUMENT["data"]
    np.testing.assert_array_equal(found["counts"], [[0, 1, 2], [3, 4, 5]])


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("exit 7",)


def test_a_pickle_runs_nothing_even_where_pickles_are_taken() -> None:
    with pytest.raises(Undecodable, match=r"wants (posix|nt)\.system, which is not made"):
        decode(pickle.dumps({"uid": Hostile()}), unpickle=True)
    with pytest.raises(Undecodable):
        decode(pickle.dumps({"uid": np.array([Hostile()], dtype=object)}), unpickle=True)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"noblanks",
        b" start",
        b"a b",
        b" \xff\xfe {}",
        b" start \xc1",
        b" start {",
        b" start " + b"[" * 100_000,
        b" " + b"n" * 200 + b" {}",
    ],
)
def test_other_messages_are_refused_in_one_sentence(message: bytes) -> None:
    with pytest.raises(Undecodable, match=r"^[^\n]{20,300}$"):
        decode_published(message, unpickle=False)


def test_large_messages_are_refused() -> None:
    check_size(64_000_000, 64)
    with pytest.raises(Undecodable, match=r"64\.1 MB is larger than the 64 MB"):
        check_size(64_100_000, 64)


@FUZZ
@given(st.binary(max_size=300), st.booleans())
def test_bytes_are_a_document_or_undecodable(body: bytes, unpickle: bool) -> None:
    for read in (lambda: decode(body, unpickle), lambda: decode_published(body, unpickle), lambda: decode_pair(body)):
        with suppress(Undecodable):
            read()


WORDS = (
    "uid run_start descriptor seq_num seq_nums indices start stop data data_keys name time num_events stage_y stage_x detector primary "
    "shape uri mimetype parameters stream_resource resource datum_id spec"
)
KEYS = st.sampled_from(WORDS.split())
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.sampled_from(["run", "d", "r", "primary", "x" * 20_000])
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=12)
NAMES = st.sampled_from(
    [
        "start",
        "descriptor",
        "event",
        "event_page",
        "resource",
        "datum",
        "datum_page",
        "stream_resource",
        "stream_datum",
        "stop",
        "nonsense",
        "",
    ]
)


@FUZZ
@given(st.lists(st.tuples(NAMES, VALUES), max_size=12))
def test_documents_of_any_content_break_nothing(documents: list[tuple[str, Any]]) -> None:
    state = SourceState("fuzz")
    collecting = Collecting([load_profile("sim")], state)
    for name, document in documents:
        for ended in collecting.take(name, document):
            assert isinstance(ended.is_whole(), bool)
