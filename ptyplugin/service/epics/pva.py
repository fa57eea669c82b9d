"""The process variables over PVAccess."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from p4p import Value
from p4p.nt import NTEnum, NTNDArray, NTScalar
from p4p.server import Server, ServerOperation, StaticProvider
from p4p.server.thread import SharedPV

from ptyplugin.service.epics.images import Picture, no_pictures
from ptyplugin.service.epics.records import CANCEL, CANCEL_CHOICES, RECORDS, Reading, Record

_TYPES = {"integer": "i", "number": "d", "text": "s", "long text": "s"}
_IMAGE = NTNDArray.buildType()
#: Unless the environment says where to serve: nobody outside of this machine is told of it.
_LOOPBACK = {
    "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
    "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
    "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
}


class PvaServer:
    """Serves all records and images under ``prefix`` from when it is made; cancel: is called when somebody asks for it."""

    def __init__(self, prefix: str, cancel: Callable[[], None]) -> None:
        self._pvs = {record.name: _scalar(record, cancel) for record in RECORDS}
        # Screens complain of an image without pixels.
        self._pvs |= {name: SharedPV(initial=_image(picture, 0)) for name, picture in no_pictures().items()}
        self._ids = 0
        provider = StaticProvider("ptyplugin")
        for name, pv in self._pvs.items():
            provider.add(prefix + name, pv)
        conf = {} if os.environ.get("EPICS_PVAS_INTF_ADDR_LIST") else _LOOPBACK
        self._server = Server(providers=[provider], conf=conf, useenv=True)

    def post(self, changed: Mapping[str, Reading], time_s: float) -> None:
        """These values are new, at this Unix time."""
        for name, reading in changed.items():
            value = {"index": reading.value} if isinstance(self._pvs[name].nt, NTEnum) else reading.value
            self._pvs[name].post(value, timestamp=time_s, severity=reading.severity)

    def show(self, pictures: Mapping[str, Picture]) -> None:
        """These images are new."""
        self._ids += 1
        for name, picture in pictures.items():
            self._pvs[name].post(_image(picture, self._ids))

    def close(self) -> None:
        """Stop serving."""
        self._server.stop()


class _Cancelling:
    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel

    def put(self, pv: SharedPV, operation: ServerOperation) -> None:
        """Somebody put something: 1, or the choice's name."""
        value = operation.value()
        pv.post({"index": 0})
        if value not in (1, CANCEL_CHOICES[1]):
            operation.done()
            return
        try:
            self._cancel()
        except Exception as error:
            operation.done(error=str(error))
        else:
            operation.done()


def _scalar(record: Record, cancel: Callable[[], None]) -> SharedPV:
    if record.kind == "enum":
        handler = _Cancelling(cancel) if record.name == CANCEL else None
        initial = {"index": 0, "choices": list(record.choices)}
        return SharedPV(handler=handler, nt=NTEnum(display=True), initial=initial)
    kind = NTScalar(_TYPES[record.kind], display=True)
    display: dict[str, Any] = {"description": record.about, "units": record.unit}
    if record.kind in ("integer", "number"):
        display |= {"limitLow": record.limits[0], "limitHigh": record.limits[1]}
    return SharedPV(nt=kind, initial={"value": record.start, "display": display})


def _image(picture: Picture, unique_id: int) -> Value:
    pixels: NDArray[np.float32] = np.ascontiguousarray(picture.pixels, dtype=np.float32)
    seconds = int(picture.time_s)
    stamp = {"secondsPastEpoch": seconds, "nanoseconds": int((picture.time_s - seconds) * 1e9)}
    attributes = [{"name": "ColorMode", "value": 0, "descriptor": "Color mode"}]
    attributes += [{"name": name, "value": value, "descriptor": about} for name, (value, about) in picture.attributes.items()]
    return Value(
        _IMAGE,
        {
            "value": ("floatValue", pixels.ravel()),
            "compressedSize": pixels.nbytes,
            "uncompressedSize": pixels.nbytes,
            "uniqueId": unique_id,
            "dataTimeStamp": stamp,
            "timeStamp": stamp,
            "dimension": [{"size": side, "offset": 0, "fullSize": side, "binning": 1, "reverse": False} for side in reversed(pixels.shape)],
            "attribute": attributes,
        },
    )
