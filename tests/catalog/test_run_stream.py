"""Documents of a run that is being written, from what Tiled's streams tell of its nodes."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from ptyplugin.catalog.run_stream import RunStream
from ptyplugin.model import CatalogError

START = {"uid": "run-1", "time": 1000.0}
NUMBER = {"dtype": "number", "shape": [], "dtype_numpy": "<f8", "units": "um", "object_name": "stage"}
FRAMES = {"dtype": "array", "shape": [1, 4, 6], "dtype_numpy": "<u2", "external": "STREAM:", "object_name": "det"}
WANTED = {"primary": {"det", "y"}}
Documents = list[tuple[str, Any]]


def created(key: str, **more: Any) -> dict[str, Any]:
    return {"type": "container-child-created", "sequence": 1, "key": key, "metadata": {}, **more}


def source(shape: tuple[int, ...], files: int = 1, mimetype: str = "application/x-hdf5") -> dict[str, Any]:
    assets = [{"data_uri": f"file://localhost/{file}.h5", "is_directory": False, "parameter": "data_uris"} for file in range(files)]
    structure = {"shape": shape, "chunks": [[side] for side in shape]}
    parameters = {"dataset": "/data", "swmr": True}
    return {"structure_family": "array", "structure": structure, "mimetype": mimetype, "parameters": parameters, "assets": assets}


def referred(count: int, files: int = 1) -> dict[str, Any]:
    """An array of ``count`` frames in files."""
    shape = (count, 1, 4, 6)
    return {"type": "array-ref", "sequence": count, "shape": shape, "data_source": source(shape, files)}


def rows(sequence: int, *seq_nums: int, at: float = 0.0) -> dict[str, Any]:
    times = [1001.0 + at + seq_num for seq_num in seq_nums]
    table = pa.table({"seq_num": list(seq_nums), "time": times, "y": [float(each) for each in seq_nums], "ts_y": times})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    return {"type": "table-data", "sequence": sequence, "payload": sink.getvalue().to_pybytes()}


class Told:
    """A run with one stream; collects its documents."""

    def __init__(self, data_keys: dict[str, Any], array: dict[str, Any] | None = None) -> None:
        self.stream = RunStream(START, WANTED)
        self.documents: Documents = []
        descriptor = {"uid": "d", "time": 1001.0, "data_keys": data_keys, "configuration": {}}
        assert self.take((), created("baseline", metadata=descriptor)) == []
        assert self.take((), created("primary", metadata=descriptor)) == [("primary",)]
        made = array or source((0, 1, 4, 6))
        assert self.take(("primary",), created("det", structure_family="array", data_sources=[made])) == [("primary", "det")]

    def take(self, node: tuple[str, ...], told: dict[str, Any]) -> list[tuple[str, ...]]:
        documents, nodes = self.stream.take(node, told)
        self.documents += documents
        return nodes

    def frames(self, told: dict[str, Any]) -> None:
        self.take(("primary", "det"), told)

    def table(self) -> None:
        assert self.take(("primary",), created("internal", structure_family="table", data_sources=[])) == [("primary", "internal")]

    def events(self, told: dict[str, Any]) -> None:
        self.take(("primary", "internal"), told)

    def paired(self) -> list[tuple[int, int]]:
        """(seq_num, index) of all frames."""
        data = [document for name, document in self.documents if name == "stream_datum"]
        spans = [(range(*each["seq_nums"].values()), range(*each["indices"].values())) for each in data]
        return [pair for seq_nums, indices in spans for pair in zip(seq_nums, indices, strict=True)]


def test_a_fly_scan_is_known_as_its_batches_come() -> None:
    told = Told({"det": FRAMES})
    told.frames(referred(10))
    # It may be all that ever comes: then it came at the end.
    assert told.documents == []
    told.frames(referred(17))
    assert [name for name, _ in told.documents] == ["start", "descriptor", "stream_resource", "stream_datum", "stream_datum"]
    resource = dict(told.documents)["stream_resource"]
    assert (resource["uri"], resource["parameters"]) == ("file://localhost/0.h5", {"dataset": "/data", "swmr": True, "multiplier": 1})
    # A message that was lost costs nothing.
    told.frames(referred(40))
    assert told.paired() == [(number + 1, number) for number in range(40)]


def test_a_shape_that_cannot_be_takes_no_time() -> None:
    """It is foreign: what is too much is for the collector to say, and not to be counted frame by frame here."""
    told = Told({"det": FRAMES})
    for count in (10, 10**15):
        told.frames(referred(count))
    assert [document["indices"]["stop"] for name, document in told.documents if name == "stream_datum"] == [10, 10**15]


def test_frames_wait_for_their_events_and_find_them_after_a_rewind() -> None:
    told = Told({"det": FRAMES, "y": NUMBER})
    told.table()
    told.frames(referred(1))
    told.frames(referred(2))
    assert told.paired() == []
    told.events(rows(1, 1, 2))
    told.frames(referred(4))
    # The third point is taken twice; a row that was sent twice counts once.
    told.events(rows(2, 3))
    told.events(rows(3, 3))
    told.events(rows(4, 3, at=0.5))
    assert told.paired() == [(1, 0), (2, 1), (3, 2), (3, 3)]
    pages = [document for name, document in told.documents if name == "event_page"]
    assert [page["data"]["y"] for page in pages] == [[1.0, 2.0], [3.0], [3.0]]
    assert [uid for page in pages for uid in page["uid"]] == ["d/0", "d/1", "d/2", "d/3"]


def test_events_that_were_lost_end_it() -> None:
    told = Told({"det": FRAMES, "y": NUMBER})
    told.table()
    told.events(rows(1, 1))
    # The second is of a server that was started again.
    for sequence in (4, 1):
        with pytest.raises(CatalogError, match="of the events of primary after message 1 was lost"):
            told.events(rows(sequence, 5))


def test_frames_in_a_second_file_are_read_through_the_catalog() -> None:
    told = Told({"det": FRAMES})
    for count in (2, 3):
        told.frames(referred(count))
    told.frames(referred(6, files=2))
    uris = [document["uri"] for name, document in told.documents if name == "stream_resource"]
    assert uris == ["file://localhost/0.h5", "tiled:run-1/primary/det"]
    assert told.paired() == [(number + 1, number) for number in range(6)]


def test_frames_from_events_count_when_they_are_written() -> None:
    """Two blocks at first, then one more after another."""
    in_events = {name: value for name, value in FRAMES.items() if name != "external"}
    made = source((2, 4, 6), mimetype="application/x-zarr")
    made["structure"]["chunks"] = [[1, 1], [4], [6]]
    told = Told({"det": {**in_events, "shape": [4, 6]}, "y": NUMBER}, made)
    told.table()
    for block in (0, 1):
        told.events(rows(block + 1, block + 1))
        assert told.paired() == []
        told.frames({"type": "array-data", "sequence": block + 1, "shape": (1, 4, 6), "offset": None, "block": [block, 0, 0]})
    assert told.paired() == [(1, 0), (2, 1)]
    told.frames({"type": "array-data", "sequence": 3, "shape": (1, 4, 6), "offset": [2, 0, 0], "block": None})
    told.events(rows(3, 3))
    assert told.paired() == [(1, 0), (2, 1), (3, 2)]
    descriptor = dict(told.documents)["descriptor"]
    assert descriptor["data_keys"]["det"]["external"] == "STREAM:"
    assert dict(told.documents)["stream_resource"]["mimetype"] == "application/x-tiled"


def test_a_configuration_that_changes_belongs_to_the_events_after_it() -> None:
    told = Told({"det": FRAMES, "y": NUMBER})
    told.table()
    told.events(rows(1, 1))
    updates = [{"uid": "d2", "time": 1003.5, "configuration": {}}]
    metadata = {"uid": "d", "time": 1001.0, "data_keys": {"det": FRAMES, "y": NUMBER}, "configuration": {}, "_config_updates": updates}
    told.take((), {"type": "container-child-metadata-updated", "sequence": 2, "key": "primary", "metadata": metadata})
    told.events(rows(2, 2, 3))
    pages = [document for name, document in told.documents if name == "event_page"]
    assert [page["descriptor"] for page in pages] == ["d", "d", "d2"]
    assert [document["uid"] for name, document in told.documents if name == "descriptor"] == ["d", "d2"]
