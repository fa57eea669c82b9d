"""A run while it is written: its documents, from what Tiled's streams tell of its nodes. Connections are somebody else's.

What is told of a run that TiledWriter writes (bluesky-tiled-plugins 2.0.12, Tiled 0.2.20):

* of the run: its streams as they are created, each with its descriptor, and what is added to that;
* of a stream: its arrays, each with the files behind it, and the table ``internal`` of its events;
* of the table: the rows that were added, themselves;
* of an array: its shape after each batch, so that a message that is lost costs nothing; of an array from events, its new part.

A stream above 1024 columns has several tables; its events come at the end of the run only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import pyarrow as pa
from tiled.structures.data_source import DataSource

from ptyplugin.catalog.documents import TILED_URI, Document, datums_of, descriptors_of, event_pages, place_of
from ptyplugin.model import CatalogError

#: A node of a run: () is the run itself, (stream,) one of its streams, (stream, key) an array or table of that.
Node = tuple[str, ...]

TABLE = "internal"
_CREATED, _UPDATED = "container-child-created", "container-child-metadata-updated"


class RunStream:
    """One run, from its start on.

    What comes is held back until a node grows for the second time: a writer that keeps all events until the end of the run sends
    everything at once, and then it is too late for a live image.

    start: its start document
    wanted: by name of the stream, the keys of the arrays that are needed
    """

    def __init__(self, start: Mapping[str, Any], wanted: Mapping[str, Set[str]]) -> None:
        self._uid, self._wanted = str(start["uid"]), wanted
        self._streams: dict[str, _Stream] = {}
        self._grown: set[Node] = set()
        self._held: list[Document] | None = [("start", dict(start))]

    @property
    def is_live(self) -> bool:
        """Whether anything of it was given out."""
        return self._held is None

    def take(self, node: Node, told: Mapping[str, Any]) -> tuple[list[Document], list[Node]]:
        """What becomes known with a message on ``node``: documents, and nodes whose messages are needed from now on.

        Raises:
            CatalogError: events were lost on the way, and so nobody knows which frames are whose from now on.
        """
        if not node:
            return [], self._take_stream(told)
        stream = self._streams[node[0]]
        if len(node) == 1:
            return [], [(node[0], key) for key in stream.take_child(told)]
        documents = stream.grow(node[1], told)
        if self._held is None:
            return documents, []
        self._held += documents
        if node not in self._grown:
            self._grown |= {node} if _is_growth(told) else set()
            return [], []
        documents, self._held = self._held, None
        return documents, []

    def _take_stream(self, told: Mapping[str, Any]) -> list[Node]:
        name = str(told.get("key"))
        if told.get("type") == _CREATED and name in self._wanted:
            self._streams[name] = _Stream(self._uid, name, told["metadata"], self._wanted[name])
            return [(name,)]
        if told.get("type") == _UPDATED and name in self._streams:
            self._streams[name].describe(told["metadata"])
        return []


@dataclass(slots=True)
class _Array:
    """shape: as far as it is written; blocks: how many of its first part are still to come, if it is written by value

    count: data that were given out; resource: where its newest data lie, and how many such places there were
    """

    source: DataSource[Any]
    shape: tuple[int, ...]
    blocks: int = 0
    count: int = 0
    resource: tuple[str, str, dict[str, Any]] | None = None
    resources: int = 0

    def take(self, told: Mapping[str, Any]) -> None:
        """Hear of its growth."""
        if told["type"] == "array-ref":
            self.source = DataSource.from_json(told["data_source"])
            self.shape = tuple(told["shape"])
        elif told["type"] == "array-data" and told["offset"] is not None:
            self.shape = (int(told["offset"][0]) + int(told["shape"][0]), *self.shape[1:])
        elif told["type"] == "array-data":
            self.blocks = 0 if told["block"] is None else self.blocks - 1
            if self.blocks <= 0:
                self.shape = tuple(self.source.structure["shape"])


class _Stream:
    """One stream of a run. ``arrays`` are the keys of those that are needed."""

    def __init__(self, run_uid: str, name: str, metadata: Mapping[str, Any], arrays: Set[str]) -> None:
        self._run_uid, self._name, self._wanted = run_uid, name, arrays
        self._descriptors: list[dict[str, Any]] = []
        self._described = 0
        self.describe(metadata)
        self._arrays: dict[str, _Array] = {}
        self._seq_nums: list[int] = []
        self._rows: set[tuple[int, float]] = set()
        self._sequence = 0
        self._has_events = any("external" not in key for key in self._descriptors[0]["data_keys"].values())

    def describe(self, metadata: Mapping[str, Any]) -> None:
        """Hear of its descriptors: the first, and those that changed the configuration since."""
        self._descriptors = descriptors_of(self._run_uid, self._name, metadata)

    def take_child(self, told: Mapping[str, Any]) -> list[str]:
        """Hear of an array or a table; its key, if it is needed."""
        key = told.get("key")
        if told.get("type") != _CREATED or not isinstance(key, str):
            return []
        if told["structure_family"] == "table":
            return [key] if key == TABLE else []
        if told["structure_family"] != "array" or key not in self._descriptors[0]["data_keys"]:
            return []
        source = DataSource.from_json(told["data_sources"][0])
        shape = tuple(source.structure["shape"])
        self._arrays[key] = _Array(source, (0, *shape[1:]), prod(len(sizes) for sizes in source.structure["chunks"]))
        return [key] if key in self._wanted else []

    def grow(self, key: str, told: Mapping[str, Any]) -> list[Document]:
        """Hear of the growth of an array or of the table.

        Raises:
            CatalogError: some of the events were lost.
        """
        documents: list[Document] = []
        if told["type"] == "table-data":
            documents += self._events(told)
        elif key in self._arrays:
            self._arrays[key].take(told)
        documents += [document for each in sorted(self._wanted & self._arrays.keys()) for document in self._frames(each)]
        return [*self._new_descriptors(), *documents] if documents else []

    def _new_descriptors(self) -> Iterator[Document]:
        for descriptor in self._descriptors[self._described :]:
            for key in self._arrays.keys() & descriptor["data_keys"].keys():
                # Arrays from events are referred to, which the data key must say.
                descriptor["data_keys"][key].setdefault("external", "STREAM:")
            yield "descriptor", descriptor
        self._described = len(self._descriptors)

    def _events(self, told: Mapping[str, Any]) -> Iterator[Document]:
        if told["sequence"] != self._sequence + 1:
            raise CatalogError(f"what was told of the events of {self._name} after message {self._sequence} was lost")
        self._sequence = told["sequence"]
        with pa.ipc.open_file(told["payload"]) as file:
            columns = file.read_all().to_pydict()
        new = []
        for row, event in enumerate(zip(columns["seq_num"], columns["time"], strict=True)):
            # A row that was sent twice counts once.
            if event not in self._rows:
                self._rows.add(event)
                new.append(row)
        first = len(self._seq_nums)
        self._seq_nums += [columns["seq_num"][row] for row in new]
        yield from event_pages(self._descriptors, {key: [cells[row] for row in new] for key, cells in columns.items()}, first)

    def _frames(self, key: str) -> Iterator[Document]:
        """What is new of an array; of a stream with events, as far as those have come."""
        array, descriptor = self._arrays[key], self._descriptors[0]
        count, each = datums_of(array.shape, descriptor["data_keys"][key].get("shape") or [])
        seq_nums = self._seq_nums[:count] if self._has_events else range(1, count + 1)
        if len(seq_nums) <= array.count:
            return
        yield from self._resource(key, array, each)
        first, array.count = array.count, len(seq_nums)
        for begin, end in _runs(seq_nums, first):
            ranges = {
                "indices": {"start": begin, "stop": end},
                "seq_nums": {"start": seq_nums[begin], "stop": seq_nums[begin] + end - begin},
            }
            uid = self._resource_uid(key, array)
            yield "stream_datum", {"uid": f"{uid}/{begin}", "stream_resource": uid, "descriptor": descriptor["uid"], **ranges}

    def _resource(self, key: str, array: _Array, frames: int) -> Iterator[Document]:
        """Where its data lie, if that is news: a further file makes one array of several."""
        place = place_of([array.source], TILED_URI.format(run_uid=self._run_uid, stream=self._name, key=key))
        if place == array.resource:
            return
        array.resource, array.resources = place, array.resources + 1
        mimetype, uri, parameters = place
        resource = {"uid": self._resource_uid(key, array), "run_start": self._run_uid, "data_key": key, "mimetype": mimetype, "uri": uri}
        yield "stream_resource", {**resource, "parameters": {**parameters, "multiplier": frames}}

    def _resource_uid(self, key: str, array: _Array) -> str:
        return f"{self._descriptors[0]['uid']}-{key}-{array.resources}"


def _is_growth(told: Mapping[str, Any]) -> bool:
    """Whether a message tells of more data, and is not a block of an array's first part."""
    return told["type"] in ("table-data", "array-ref") or told["offset"] is not None


def _runs(seq_nums: Sequence[int], first: int) -> Iterator[tuple[int, int]]:
    """Where the stretches of consecutive numbers from place ``first`` on begin and end."""
    if isinstance(seq_nums, range):
        return pairwise([first, len(seq_nums)])
    breaks = [place for place in range(first + 1, len(seq_nums)) if seq_nums[place] != seq_nums[place - 1] + 1]
    return pairwise([first, *breaks, len(seq_nums)])
