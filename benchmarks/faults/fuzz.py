"""Bytes and documents that nobody meant: the decoder refuses them with a sentence, the collector passes them over."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgpack
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.faults.table import Row
from benchmarks.scan_burst import scan_documents
from ptyplugin.callbacks import assemble, locating
from ptyplugin.model import JobParts, Profile, Refusal
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
    checks = (bytes_to_the_decoder, documents_to_the_collector, fly_scans_to_the_collector)
    return [run_examples(check, examples) for check in checks]


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


def fly_scans_to_the_collector(harms: list[tuple[str, Any, str]], by_time: bool) -> None:
    """As documents_to_the_collector, of frames and encoders that are told in ranges alone; and what is made of the spoilt run."""
    profile = _fly_profile(by_time)
    collecting = Collecting([profile], SourceState("fuzz"))
    spoilt: list[tuple[Any, Any]] = []
    later: list[tuple[Any, Any]] = []
    for (name, document), (harm, value, other) in zip(_fly_documents("bad", by_time), harms, strict=True):
        spoilt += _spoilt(name, document, harm, value, other)
        if harm == "later":
            later.append((name, document))
    with patch.object(locating, "DEADLINE_S", 0.0):
        for name, document in [*spoilt, *later]:
            for over in collecting.take(name, document):
                for _, run in over.found:
                    assert isinstance(assemble(run, profile, _Captured()), JobParts | Refusal)
        ended = [run for each in _fly_documents("good", by_time) for run in collecting.take(*each)]
        assert [run.uid for run in ended] == ["good"]
        assert ended[0].is_whole()
        parts = assemble(ended[0].found[0][1], profile, _Captured())
    assert isinstance(parts, JobParts), parts
    assert parts.job.frame_count == _FRAMES


#: Frames of the fly scan, and samples that its box takes meanwhile.
_FRAMES, _SAMPLES = 12, 60


class _Captured:
    """Files of the box and the detector, as they are when all went well."""

    def read(self, source: Any, start: int, stop: int, per_point: int) -> NDArray[np.float64]:
        places = np.arange(start, min(stop, start + 1000), dtype=np.float64)
        at_s = 100.0 + (5.0 if "detector" in source.uri else 1.0) * places
        return at_s if "time" in source.uri else 0.3 * (places % 7) + (0.2 * places if "stage_y" in source.uri else 0.0)


def _fly_profile(by_time: bool) -> Profile:
    clock = {"samples": "time", "frames": "detector-time", "exposure": {"value": 4.0, "unit": "s"}}
    told = load_profile("sim").model_dump(exclude_unset=True)
    return Profile.model_validate({**told, "positions": {**told["positions"], "stream": "panda", **({"clock": clock} if by_time else {})}})


def _fly_documents(uid: str, by_time: bool) -> list[tuple[str, dict[str, Any]]]:
    """Frames and samples in two portions of stream_datum each, and no event."""
    number = {"source": "panda", "dtype": "number", "shape": [], "units": "um", "external": "STREAM:"}
    clock = {**number, "units": "s"}
    frames = {"detector": {**number, "dtype": "array", "shape": [1, 8, 8]}, "detector-time": clock}
    samples = {"time": clock, "stage_y": number, "stage_x": number}
    (start, begun), *_, (stop, ended) = _documents(uid)
    documents = [(start, begun)]
    for stream, keys in (("primary", frames), ("panda", samples)):
        about = {"uid": f"{uid}-{stream}", "run_start": uid, "time": 1.0, "name": stream, "data_keys": keys, "configuration": {}}
        documents.append(("descriptor", {**about, "hints": {}, "object_keys": {key: [key] for key in keys}}))
        for key in keys:
            about = {"uid": f"{uid}-{key}", "run_start": uid, "data_key": key, "mimetype": "application/x-hdf5"}
            documents.append(("stream_resource", {**about, "uri": f"file:///{key}.h5", "parameters": {"dataset": f"/{key}"}}))
    count = {"primary": _FRAMES, "panda": _SAMPLES if by_time else _FRAMES}
    for low, high in ((0.0, 0.5), (0.5, 1.0)):
        for stream, keys in (("primary", frames), ("panda", samples)):
            first, last = int(low * count[stream]), int(high * count[stream])
            numbers = {"indices": {"start": first, "stop": last}, "seq_nums": {"start": first + 1, "stop": last + 1}}
            for key in keys:
                about = {"uid": f"{uid}-{key}/{first}", "stream_resource": f"{uid}-{key}", "descriptor": f"{uid}-{stream}"}
                documents.append(("stream_datum", {**about, **numbers}))
    return [*documents, (stop, {**ended, "num_events": count})]


_MESSAGES = st.tuples(st.sampled_from(_NAMES), _BODIES).map(lambda pair: b" " + pair[0].encode() + b" " + pair[1])
#: What stands where indices and seq_nums do.
_NUMBERS = st.fixed_dictionaries({"start": st.integers(), "stop": st.integers()})
#: Check -> what it is given.
STRATEGIES: dict[str, dict[str, Any]] = {
    "bytes_to_the_decoder": {"message": st.binary(max_size=200) | _MESSAGES, "unpickle": st.booleans()},
    "documents_to_the_collector": {"harms": st.lists(st.tuples(_HARMS, _VALUES, st.sampled_from(_NAMES)), min_size=13, max_size=13)},
    "fly_scans_to_the_collector": {
        "harms": st.lists(st.tuples(_HARMS, _VALUES | _NUMBERS, st.sampled_from(_NAMES)), min_size=19, max_size=19),
        "by_time": st.booleans(),
    },
}
