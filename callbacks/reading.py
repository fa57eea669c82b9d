"""From a foreign document to typed ones. All doubt about types ends here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.callbacks.assets import asset_of_resource, asset_of_stream_resource
from ptyplugin.callbacks.documents import (
    FRAME_STAMP,
    SAMPLE_STAMP,
    DataKey,
    Datum,
    Descriptor,
    Document,
    Event,
    Reading,
    Resource,
    Start,
    Stop,
    StreamDatum,
    Wanted,
)
from ptyplugin.callbacks.fields import (
    LARGEST_NUMBER,
    MalformedDocument,
    at_dotted_key,
    moment,
    numbers,
    shape,
    span,
    table,
    text,
    text_or_none,
    whole,
    whole_or_none,
)

#: More frames than this in one run are a mistake, or somebody who wants to fill the memory.
MOST_FRAMES = 2_000_000
_LONGEST_REASON = 300
#: What ophyd calls a motor's field EGU. Of a unit that was changed since ophyd connected, its data key still says the old one.
_MOTOR_UNIT = "_motor_egu"


def read_documents(name: Any, document: Any, wanted: Wanted) -> list[Document]:
    """The typed documents in a document: one, or as many as a page holds.

    Raises:
        MalformedDocument: the kind is unknown, or the document does not say what its kind has to say.
    """
    reader = _READERS.get(name) if isinstance(name, str) else None
    if reader is None:
        raise MalformedDocument(f"documents of the kind {name!r:.80} are not read")
    try:
        return reader(table(document), wanted)
    except MalformedDocument:
        raise
    # The document is foreign and may hold any object: whatever goes wrong while it is read is wrong with it.
    except Exception as error:
        raise MalformedDocument(f"this {name} cannot be read: {_said(error)}") from error


def _said(error: Exception) -> str:
    kind = type(error).__name__
    try:
        return f"{kind}: {error!s:.200}"
    # It may be a foreign one too.
    except Exception:
        return kind


def _start(document: Mapping[str, Any], wanted: Wanted) -> list[Document]:
    values = {}
    for key in wanted.start:
        try:
            values[key] = at_dotted_key(document, key)
        except KeyError:
            continue
    plan_name = text_or_none(document.get("plan_name")) or ""
    begun_s = moment(document.get("time"))
    said_s = begun_s if math.isfinite(begun_s) else None
    return [Start(text(document["uid"]), whole_or_none(document.get("scan_id")), plan_name, values, said_s, _announced(document))]


def _announced(document: Mapping[str, Any]) -> int | None:
    """Number of points that the plan says it will take."""
    sides = shape(document.get("shape"))
    return whole_or_none(document.get("num_points"), 1) or (prod(sides) if sides else None) or None


def _descriptor(document: Mapping[str, Any], wanted: Wanted) -> list[Document]:
    configuration: dict[str, Reading] = {}
    units: dict[str, str] = {}
    for device in table(document.get("configuration") or {}).values():
        data, keys = table(table(device).get("data") or {}), table(table(device).get("data_keys") or {})
        for key in wanted.configuration & data.keys():
            configuration[key] = Reading(data[key], _data_key(keys.get(key)).units)
        units.update(_motor_units(data))
    data_keys = {text(key): _data_key(entry) for key, entry in table(document["data_keys"]).items()}
    data_keys |= {key: replace(data_keys[key], units=unit) for key, unit in units.items() if key in data_keys}
    uid, run, stream = text(document["uid"]), text(document["run_start"]), text_or_none(document.get("name")) or "primary"
    return [Descriptor(uid, run, stream, moment(document.get("time")), data_keys, configuration)]


def _motor_units(data: Mapping[Any, Any]) -> dict[str, str]:
    """Units by data key of the motors' readbacks, from the configuration of a device."""
    found = {key: text_or_none(value) for key, value in data.items() if isinstance(key, str) and key.endswith(_MOTOR_UNIT)}
    return {key.removesuffix(_MOTOR_UNIT): unit for key, unit in found.items() if unit}


def _data_key(entry: Any) -> DataKey:
    if not isinstance(entry, Mapping):
        return DataKey(None, None, None)
    return DataKey(shape(entry.get("shape")), text_or_none(entry.get("units")), text_or_none(entry.get("external")))


def _event(document: Mapping[str, Any], wanted: Wanted) -> list[Document]:
    data, filled = table(document["data"]), table(document.get("filled") or {})
    return [
        Event(
            descriptor=text(document["descriptor"]),
            seq_num=whole(document["seq_num"], 1, LARGEST_NUMBER),
            time=moment(document.get("time")),
            uid=text(document["uid"]),
            columns=_columns(data, document.get("timestamps"), wanted),
            frames=_frames(data.get(wanted.detector), filled.get(wanted.detector)),
            readings={key: data[key] for key in wanted.readings & data.keys()},
        )
    ]


def _columns(data: Mapping[str, Any], stamps: Any, wanted: Wanted) -> dict[str, tuple[float, ...]]:
    found = {key: numbers(data[key]) for key in wanted.columns & data.keys()}
    for mark, key in ((SAMPLE_STAMP, wanted.y), (FRAME_STAMP, wanted.detector)):
        if mark in wanted.columns and key in data and isinstance(stamps, Mapping):
            found[mark] = numbers(stamps.get(key))
    return found


def _frames(value: Any, filled: Any) -> str | NDArray[Any] | None:
    """A datum id, before or after somebody filled it in, or the frames (frame, y, x) themselves."""
    for reference in (value, filled):
        if isinstance(reference, str):
            return text(reference)
    if value is None:
        return None
    counts = np.asarray(value)
    if counts.dtype.kind not in "uif" or counts.ndim < 2 or counts.size == 0:
        return None
    return counts.reshape(-1, *counts.shape[-2:])


def _event_page(document: Mapping[str, Any], wanted: Wanted) -> list[Document]:
    columns, data, filled = table(document), table(document["data"]), table(document.get("filled") or {})
    stamps = table(document.get("timestamps") or {})
    keys = {wanted.detector, *wanted.columns, *wanted.readings} & data.keys()
    events: list[Document] = []
    for row, seq_num in enumerate(columns["seq_num"]):
        single = {name: columns[name][row] for name in ("uid", "time")}
        values = {key: data[key][row] for key in keys}
        marks = {key: filled[key][row] for key in keys & filled.keys() if filled[key]}
        times = {key: stamps[key][row] for key in keys & stamps.keys() & {wanted.y, wanted.detector}} if wanted.frame_time else {}
        event = {**single, "seq_num": seq_num, "descriptor": columns["descriptor"], "data": values, "filled": marks, "timestamps": times}
        events += _event(event, wanted)
    return events


def _resource(document: Mapping[str, Any], _: Wanted) -> list[Document]:
    return [Resource(text(document["uid"]), text_or_none(document.get("run_start")), None, asset_of_resource(document))]


def _stream_resource(document: Mapping[str, Any], _: Wanted) -> list[Document]:
    run, key = text_or_none(document.get("run_start")), text(document["data_key"])
    return [Resource(text(document["uid"]), run, key, asset_of_stream_resource(document))]


def _datum(document: Mapping[str, Any], _: Wanted) -> list[Document]:
    options = table(document.get("datum_kwargs") or {})
    rows = None
    if "indices" in options:
        rows = span(options["indices"], MOST_FRAMES)
    elif "point_number" in options:
        point = whole(options["point_number"], high=LARGEST_NUMBER)
        rows = range(point, point + 1)
    frame = whole(options["frame"], high=LARGEST_NUMBER) if "frame" in options else None
    return [Datum(text(document["datum_id"]), text(document["resource"]), rows, frame, text_or_none(options.get("dataset")))]


def _datum_page(document: Mapping[str, Any], wanted: Wanted) -> list[Document]:
    options = table(document.get("datum_kwargs") or {})
    datums: list[Document] = []
    for row, datum_id in enumerate(document["datum_id"]):
        single = {name: column[row] for name, column in options.items()}
        datums += _datum({"datum_id": datum_id, "resource": document["resource"], "datum_kwargs": single}, wanted)
    return datums


def _stream_datum(document: Mapping[str, Any], _: Wanted) -> list[Document]:
    indices, seq_nums = span(document["indices"], MOST_FRAMES), span(document["seq_nums"], MOST_FRAMES)
    if len(indices) != len(seq_nums):
        raise MalformedDocument(f"this stream_datum has {len(indices)} indices for {len(seq_nums)} seq_nums")
    return [StreamDatum(text(document["stream_resource"]), text(document["descriptor"]), indices, seq_nums)]


def _stop(document: Mapping[str, Any], _: Wanted) -> list[Document]:
    counts = document.get("num_events")
    named = {name: whole_or_none(count) for name, count in counts.items()} if isinstance(counts, Mapping) else {}
    points = {name: count for name, count in named.items() if count is not None}
    status, reason = text_or_none(document.get("exit_status")) or "unknown", text_or_none(document.get("reason")) or ""
    return [Stop(text(document["run_start"]), status, " ".join(reason.split())[:_LONGEST_REASON], points)]


_READERS: dict[str, Callable[[Mapping[str, Any], Wanted], list[Document]]] = {
    "start": _start,
    "descriptor": _descriptor,
    "event": _event,
    "event_page": _event_page,
    "resource": _resource,
    "stream_resource": _stream_resource,
    "datum": _datum,
    "datum_page": _datum_page,
    "stream_datum": _stream_datum,
    "stop": _stop,
}
