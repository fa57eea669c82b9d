"""Real and reference document streams replay without an exception, whatever the profile looks for in them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ptyplugin.callbacks import Collector, RunStarted
from ptyplugin.model import JobParts, Refusal

Documents = list[tuple[str, dict[str, Any]]]


def streams_of(path: Path) -> Documents:
    """The documents in one of the files, whichever of the forms it has."""
    if path.suffix == ".msgpack":
        msgpack = pytest.importorskip("msgpack")
        with path.open("rb") as file:
            return [(name, document) for name, document in msgpack.Unpacker(file, raw=False)]
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    entries = json.loads(raw.decode().replace("{{ uuid }}", "9b2d").replace("{{ root_path }}", "/data"))
    return [(each["name"], each["doc"]) if isinstance(each, dict) else (each[0], each[1]) for each in entries]


@pytest.fixture(scope="module")
def recorded(shared: Path) -> dict[str, Documents]:
    folder = shared / "data" / "documents"
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".gz", ".msgpack")]
    return {path.name: streams_of(path) for path in paths}


def profiles_for(bench: Any, documents: Documents) -> Iterator[Any]:
    """For each descriptor: its array keys, or the first, as detector; pairs of its first keys as motors."""
    for name, document in documents:
        if name == "descriptor":
            keys = sorted(document["data_keys"], key=lambda key: (-len(document["data_keys"][key].get("shape") or ()), key))[:4]
            stream = document.get("name", "primary")
            for y, x in list(combinations(keys, 2))[:3]:
                motors = {"y": {"key": y, "unit": "um"}, "x": {"key": x, "unit": "um"}, "largest_mismatch": 1.0}
                energy = {"energy": {"value": 8, "unit": "keV"}, "distance": {"value": 2, "unit": "m"}}
                yield bench.profile(detector={"key": keys[0], "stream": stream}, positions=motors, geometry=energy)


def test_the_files_are_there(recorded: dict[str, Documents]) -> None:
    assert sum(map(len, recorded.values())) > 1700
    assert {"usaxs.json.gz", "external_assets.json", "external_assets_legacy.json"} <= recorded.keys()


def test_streams_without_our_keys_give_nothing(bench: Any, recorded: dict[str, Documents]) -> None:
    motors = {"y": {"key": "piezo_y", "unit": "um"}, "x": {"key": "piezo_x", "unit": "um"}}
    for documents in recorded.values():
        assert bench.collect(documents, bench.profile(detector={"key": "eiger"}, positions=motors)) == []


def test_no_real_document_is_passed_over(bench: Any, recorded: dict[str, Documents]) -> None:
    for documents in recorded.values():
        collector = Collector(bench.profile())
        started = sum(isinstance(output, RunStarted) for name, document in documents for output in collector(name, document))
        assert started == sum(name == "start" for name, _ in documents)
        assert collector.ignored == {}


def test_streams_with_our_keys_give_jobs_or_sentences(bench: Any, recorded: dict[str, Documents]) -> None:
    made: list[JobParts | Refusal] = []
    for documents in recorded.values():
        tried = {profile.model_dump_json(): profile for profile in profiles_for(bench, documents)}
        for profile in list(tried.values())[:12]:
            made += bench.collect(documents, profile)
    reasons = {parts.reason for parts in made if isinstance(parts, Refusal)}
    assert len(made) > 100
    assert len(reasons) > 20
    assert all(reason.endswith((".", "?")) for reason in reasons)


@pytest.mark.parametrize("file", ["external_assets.json", "external_assets_legacy.json"])
def test_frames_of_the_reference_streams_are_found(bench: Any, recorded: dict[str, Documents], file: str) -> None:
    """They were taken by ``count``: motors are put into their events."""
    documents: Documents = []
    for name, document in recorded[file]:
        if name == "descriptor" and document["name"] == "primary":
            document = {**document, "data_keys": {**document["data_keys"], "y": {}, "x": {}}}
        elif name == "event":
            document = {**document, "data": {**document["data"], "y": document["seq_num"], "x": 0.0}}
        documents.append((name, document))
    motors = {"y": {"key": "y", "unit": "um"}, "x": {"key": "x", "unit": "um"}}
    geometry = {"energy": {"value": 8, "unit": "keV"}, "distance": {"value": 2, "unit": "m"}}
    (parts,) = bench.collect(documents, bench.profile(detector={"key": "det-key2"}, positions=motors, geometry=geometry))
    assert isinstance(parts, JobParts), parts
    assert parts.job.geometry.shape == (13, 17)
    assert parts.job.frames[0].source.dataset == "/entry/data/data_2"
    assert parts.job.frames[0].source.uri.endswith("/data/dataset.h5")
    assert parts.job.frames[0].ranges == [(0, 3)]
