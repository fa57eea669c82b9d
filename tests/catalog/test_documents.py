"""A run's documents from the catalog against those that went by, and its frames against their file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptyplugin.callbacks import Collector, RunEnded, assemble
from ptyplugin.catalog import CatalogFrames, find_run, run_documents
from ptyplugin.model import CatalogError, FramesError, Job, JobParts, Profile, Site, TiledSource
from ptyplugin.profiles import load_profile

pytestmark = pytest.mark.system


@dataclass(frozen=True)
class Frame:
    """A frame as documents tell of it."""

    seq_num: int
    y: float
    x: float
    mimetype: str
    uri: str
    dataset: str | None
    number: int


def frames_of(documents: Iterable[tuple[str, dict[str, Any]]]) -> list[Frame]:
    """An own, simple reading of stream documents: pair through indices <-> seq_nums; of a repeated seq_num the later one counts."""
    resources, places, positions = {}, {}, {}
    for name, document in documents:
        if name == "stream_resource":
            resources[document["uid"]] = document
        elif name == "stream_datum":
            indices, seq_nums = document["indices"], document["seq_nums"]
            for index, seq_num in zip(range(indices["start"], indices["stop"]), range(seq_nums["start"], seq_nums["stop"]), strict=True):
                places[seq_num] = (document["stream_resource"], index)
        elif name == "event":
            positions[document["seq_num"]] = (document["data"]["stage_y"], document["data"]["stage_x"])
        elif name == "event_page":
            columns = (document["seq_num"], document["data"]["stage_y"], document["data"]["stage_x"])
            positions.update({seq_num: (y, x) for seq_num, y, x in zip(*columns, strict=True)})
    frames = []
    for seq_num, (y, x) in sorted(positions.items()):
        uid, index = places[seq_num]
        resource = resources[uid]
        per_row = resource["parameters"].get("multiplier", 1)
        place = (resource["mimetype"], resource["uri"], resource["parameters"].get("dataset"))
        frames += [Frame(seq_num, y, x, *place, index * per_row + each) for each in range(per_row)]
    return frames


def documents_of(client: Any, site: Site, uid: str) -> list[tuple[str, dict[str, Any]]]:
    return list(run_documents(find_run(client, site, "sim", uid)))


def test_stream_documents_come_back_with_the_same_frames(client: Any, site: Site, stream_run: Any) -> None:
    documents = documents_of(client, site, stream_run.uid)
    frames = frames_of(documents)
    assert frames == frames_of(stream_run.documents)
    # The fourth point was repeated: its second frame and position count.
    assert [(frame.seq_num, frame.y, frame.number) for frame in frames] == [(1, 0.0, 0), (2, 1.0, 1), (3, 2.0, 2), (4, 3.5, 4), (5, 4.0, 5)]


def test_start_and_stop_and_descriptor_come_back(client: Any, site: Site, stream_run: Any) -> None:
    documents = documents_of(client, site, stream_run.uid)
    names = [name for name, _ in documents]
    assert names[:2] == ["start", "descriptor"]
    assert names[-1] == "stop"
    live = dict(stream_run.documents)
    assert documents[0][1] == live["start"]
    assert documents[-1][1] == live["stop"]
    descriptor = documents[1][1]
    assert (descriptor["name"], descriptor["run_start"]) == ("primary", stream_run.uid)
    assert descriptor["configuration"]["detector"]["data"] == {"detector-gain": 2}
    assert descriptor["configuration"]["detector"]["data_keys"]["detector-gain"]["units"] == "um"
    assert descriptor["object_keys"] == live["descriptor"]["object_keys"]
    keys = descriptor["data_keys"]
    assert (keys["stage_y"]["units"], keys["detector"]["shape"], keys["detector"]["external"]) == ("um", [1, 12, 16], "STREAM:")


def test_several_frames_a_point_are_numbered_over_all(client: Any, site: Site, legacy_run: Any, folder: Path) -> None:
    frames = frames_of(documents_of(client, site, legacy_run.uid))
    assert [(frame.seq_num, frame.number) for frame in frames] == [(1 + number // 2, number) for number in range(10)]
    assert {(frame.mimetype, frame.uri, frame.dataset) for frame in frames} == {
        ("application/x-hdf5", f"file://localhost{folder}/data/legacy.h5", "/entry/data/data")
    }


@pytest.mark.parametrize("name", ["stream", "legacy"])
def test_the_job_is_the_one_of_the_live_documents(client: Any, site: Site, request: pytest.FixtureRequest, name: str) -> None:
    run = request.getfixturevalue(f"{name}_run")
    profile = load_profile("sim")
    live, rebuilt = (job_of(documents, profile) for documents in (run.documents, documents_of(client, site, run.uid)))
    assert live.frame_count == {"stream": 5, "legacy": 10}[name]
    assert rebuilt.to_bytes() == live.to_bytes()


def test_the_job_of_frames_from_events_has_the_same_key(client: Any, site: Site, inside_run: Any) -> None:
    profile = load_profile("sim")
    live, rebuilt = (job_of(documents, profile) for documents in (inside_run.documents, documents_of(client, site, inside_run.uid)))
    assert rebuilt.key == live.key
    assert rebuilt.positions_m == live.positions_m
    assert [(block.source, block.ranges) for block in rebuilt.frames] == [
        (TiledSource(run_uid=inside_run.uid, stream="primary", key="detector"), [(0, 4)])
    ]


def job_of(documents: Iterable[tuple[str, dict[str, Any]]], profile: Profile) -> Job:
    """What AutoReconstruct would submit."""
    collector = Collector(profile)
    (ended,) = [output for document in documents for output in collector(*document) if isinstance(output, RunEnded)]
    parts = assemble(ended.run, profile)
    assert isinstance(parts, JobParts), parts
    return parts.job


def test_frames_from_events_are_referred_to_in_the_catalog(client: Any, site: Site, inside_run: Any) -> None:
    documents = documents_of(client, site, inside_run.uid)
    frames = frames_of(documents)
    assert {frame.mimetype for frame in frames} == {"application/x-tiled"}
    assert {frame.uri for frame in frames} == {f"tiled:{inside_run.uid}/primary/detector"}
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    (page,) = [document for name, document in documents if name == "event_page"]
    assert set(page["data"]) == {"stage_y", "stage_x"}
    assert dict(documents)["descriptor"]["data_keys"]["detector"]["external"] == "STREAM:"


def test_frames_in_several_files_are_read_through_the_catalog(
    client: Any, site: Site, stream_run: Any, write_run: Callable[..., None], folder: Path
) -> None:
    """In which file a frame lies is not kept; the catalog joins them."""
    with h5py.File(folder / "data" / "second.h5", "w") as file:
        file["/entry/data/data"] = stream_run.counts
    renamed = [(name, _renamed(document, "stream-", "joined-")) for name, document in stream_run.documents]
    second = [(name, dict(document)) for name, document in renamed if name == "stream_resource"]
    second[0][1].update(uid="second", uri=f"file://localhost{folder}/data/second.h5")
    datums = [(name, document) for name, document in renamed if name == "stream_datum"]
    datums[-1][1].update(stream_resource="second")
    write_run(renamed[:2] + second + renamed[2:], 1)
    frames = frames_of(documents_of(client, site, stream_run.uid.replace("stream-", "joined-")))
    assert {frame.mimetype for frame in frames} == {"application/x-tiled"}
    assert [frame.number for frame in frames] == [0, 1, 2, 4, 5]


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(one, old, new) for key, one in value.items()}
    return value.replace(old, new) if isinstance(value, str) else value


def test_a_later_descriptor_owns_the_later_events(client: Any, site: Site, stream_run: Any, write_run: Callable[..., None]) -> None:
    documents = [(name, _renamed(document, "stream-", "updated-")) for name, document in stream_run.documents]
    changed = dict(documents)["descriptor"] | {"uid": "changed", "time": 1005.5}
    changed["configuration"] = {"detector": {**changed["configuration"]["detector"], "data": {"detector-gain": 9}}}
    write_run([*documents[:-1], ("descriptor", changed), documents[-1]], 1)
    rebuilt = documents_of(client, site, stream_run.uid.replace("stream-", "updated-"))
    pages = {document["descriptor"]: document["seq_num"] for name, document in rebuilt if name == "event_page"}
    assert pages == {"updated-0000-4000-8000-000000000000-primary": [1, 2, 3, 4], "changed": [4, 5]}
    gains = [document["configuration"]["detector"]["data"]["detector-gain"] for name, document in rebuilt if name == "descriptor"]
    assert gains == [2, 9]


def test_a_run_without_stop_has_none(client: Any, site: Site, stream_run: Any, write_run: Callable[..., None]) -> None:
    write_run([(name, _renamed(document, "stream-", "endless-")) for name, document in stream_run.documents[:-1]], 1)
    documents = documents_of(client, site, stream_run.uid.replace("stream-", "endless-"))
    assert "stop" not in dict(documents)
    assert len(frames_of(documents)) == 5


def test_what_is_no_run_is_said(client: Any) -> None:
    with pytest.raises(CatalogError, match="sim/processed is no run that TiledWriter wrote"):
        list(run_documents(client["sim/processed"]))


@pytest.mark.parametrize(("name", "wanted"), [("stream", [5, 0, 1, 4]), ("legacy", [9, 2, 3, 4, 0, 3]), ("inside", [3, 1])])
def test_frames_through_the_catalog_are_those_of_the_file(
    client: Any, site: Site, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: str, wanted: list[int]
) -> None:
    run = request.getfixturevalue(f"{name}_run")
    frames = CatalogFrames(client, site, "sim", TiledSource(run_uid=run.uid, stream="primary", key="detector"))
    assert (len(frames), frames.shape, frames.dtype, frames.mask) == (len(run.counts), (12, 16), np.uint16, None)
    np.testing.assert_array_equal(frames.read(np.array(wanted)), run.counts[wanted])
    assert frames.read(np.array([], dtype=np.int64)).shape == (0, 12, 16)
    # Neighbours, and what is wanted a little further on, come with one request.
    every_second = np.arange(0, frames._array.shape[0], 2)
    assert [list(frames._requests(every_second)), len(list(frames._requests(every_second * 10_000)))] == [
        [(0, every_second[-1] + 1)],
        len(every_second),
    ]
    # The same in requests of one frame each, whatever the axes before it are.
    monkeypatch.setattr("ptyplugin.catalog.frames.REQUEST_BYTES", 1)
    frames = CatalogFrames(client, site, "sim", TiledSource(run_uid=run.uid, stream="primary", key="detector"))
    np.testing.assert_array_equal(frames.read(np.arange(len(frames))), run.counts)


def test_frames_that_are_not_there_are_said(client: Any, site: Site, stream_run: Any, folder: Path) -> None:
    def frames(key: str) -> CatalogFrames:
        return CatalogFrames(client, site, "sim", TiledSource(run_uid=stream_run.uid, stream="primary", key=key))

    with pytest.raises(FramesError, match=r"has 6 frames; frames 2\.\.6 were asked for"):
        frames("detector").read(np.array([2, 6]))
    with pytest.raises(CatalogError, match="the catalog has no primary/camera of run stream-"):
        frames("camera")
    with pytest.raises(FramesError, match=r"primary/internal of run .* is no array of frames"):
        frames("internal")


def test_frames_whose_file_is_gone_are_said(client: Any, site: Site, stream_run: Any, write_run: Callable[..., None], folder: Path) -> None:
    documents = [(name, _renamed(document, "stream-", "lost-")) for name, document in stream_run.documents]
    dict(documents)["stream_resource"]["uri"] = f"file://localhost{folder}/data/lost.h5"
    write_run(documents, 1)
    source = TiledSource(run_uid=stream_run.uid.replace("stream-", "lost-"), stream="primary", key="detector")
    frames = CatalogFrames(client, site, "sim", source)
    with pytest.raises(FramesError, match=r"frames of primary/detector of run lost-.* cannot be read through the catalog"):
        frames.read(np.array([0]))


def test_frames_take_two_requests_and_none_of_a_client_of_arrays(client: Any, site: Site, stream_run: Any) -> None:
    asked: list[str] = []
    hooks = client.context.http_client.event_hooks
    client.context.http_client.event_hooks = {**hooks, "request": [*hooks["request"], lambda request: asked.append(request.url.path)]}
    try:
        frames = CatalogFrames(client, site, "sim", TiledSource(run_uid=stream_run.uid, stream="primary", key="detector"))
        frames.read(np.arange(1, 5))
    finally:
        client.context.http_client.event_hooks = hooks
    place = f"sim/raw/{stream_run.uid}/primary/detector"
    assert asked == [f"/api/v1/metadata/{place}", f"/api/v1/array/full/{place}"]


def test_frames_of_a_file_that_is_ahead_in_another_shape_are_refused_in_one_sentence(
    client: Any, site: Site, stream_run: Any, write_run: Callable[..., None], folder: Path
) -> None:
    """(frame, y, x) in the file, of which there are more than (frame, 1, y, x) in the catalog; it is no fault of single frames."""
    with h5py.File(folder / "data" / "ahead.h5", "w") as file:
        file["/entry/data/data"] = np.zeros((len(stream_run.counts) + 1, 12, 16), np.uint16)
    documents = [(name, _renamed(document, "stream-", "ahead-")) for name, document in stream_run.documents]
    dict(documents)["stream_resource"]["uri"] = f"file://localhost{folder}/data/ahead.h5"
    write_run(documents, 1)
    source = TiledSource(run_uid=stream_run.uid.replace("stream-", "ahead-"), stream="primary", key="detector")
    frames, said = CatalogFrames(client, site, "sim", source), set()
    for wanted in ([0], [1, 2]):
        with pytest.raises(CatalogError, match=r"primary/detector of run ahead-.* another number of axes") as caught:
            frames.read(np.array(wanted))
        said.add((type(caught.value), str(caught.value)))
    assert [kind for kind, _ in said] == [CatalogError]


def test_runs_are_found_by_uid_by_its_beginning_and_by_scan_id(
    client: Any, site: Site, stream_run: Any, legacy_run: Any, inside_run: Any
) -> None:
    def found(name: str | int) -> str:
        uid: str = find_run(client, site, "sim", name).metadata["start"]["uid"]
        return uid

    assert found(legacy_run.uid) == legacy_run.uid
    assert found("legacy") == legacy_run.uid
    assert found(8) == legacy_run.uid
    # Two runs have scan id 7: the younger one counts.
    assert found("7") == inside_run.uid


def test_runs_that_are_not_there_are_said(client: Any, site: Site, stream_run: Any, write_run: Callable[..., None]) -> None:
    with pytest.raises(CatalogError, match="there is no run 999 in sim/raw"):
        find_run(client, site, "sim", 999)
    with pytest.raises(CatalogError, match=r"there is no run str in sim/raw of the catalog\. Give at least 5 characters"):
        find_run(client, site, "sim", "str")
    with pytest.raises(CatalogError, match="there is no run %%%%%%"):
        find_run(client, site, "sim", "%%%%%%")
    with pytest.raises(CatalogError, match="the catalog has no folder elsewhere/raw"):
        find_run(client, site, "elsewhere", stream_run.uid)
    write_run([("start", {"uid": "stream-1", "time": 1.0})], 1)
    with pytest.raises(CatalogError, match="strea is the beginning of several runs"):
        find_run(client, site, "sim", "strea")
