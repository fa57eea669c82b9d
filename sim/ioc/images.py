"""The PVA plugin: each frame as NTNDArray over PVAccess."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from p4p import Value
from p4p.nt import NTNDArray
from p4p.server import Server, StaticProvider
from p4p.server.thread import SharedPV

_TYPE = NTNDArray.buildType()


class Images:
    """One PV with the last frame, served at the loopback.

    port: TCP, and UDP for searches
    """

    def __init__(self, name: str, shape: tuple[int, int], port: int) -> None:
        self._pv = SharedPV(initial=image(np.zeros(shape, np.uint16), 0, 0.0))
        provider = StaticProvider("images")
        provider.add(name, self._pv)
        conf = {
            "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_PVAS_SERVER_PORT": str(port),
            "EPICS_PVAS_BROADCAST_PORT": str(port),
            "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
            "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
        }
        self._server = Server(providers=[provider], conf=conf, useenv=False)

    def post(self, frame: NDArray[np.uint16], unique_id: int, time_s: float) -> None:
        """Send a frame (y, x) to whoever listens."""
        self._pv.post(image(frame, unique_id, time_s))

    def close(self) -> None:
        """Stop serving."""
        self._server.stop()


def image(frame: NDArray[np.uint16], unique_id: int, time_s: float) -> Any:
    """NTNDArray of a frame (y, x) without compression, as areaDetector's PVA plugin sends it; POSIX time."""
    seconds = int(time_s)
    stamp = {"secondsPastEpoch": seconds, "nanoseconds": int((time_s - seconds) * 1e9)}
    sides = [{"size": side, "offset": 0, "fullSize": side, "binning": 1, "reverse": False} for side in reversed(frame.shape)]
    return Value(
        _TYPE,
        {
            "value": ("ushortValue", frame.ravel()),
            "compressedSize": frame.nbytes,
            "uncompressedSize": frame.nbytes,
            "uniqueId": unique_id,
            "dataTimeStamp": stamp,
            "timeStamp": stamp,
            "dimension": sides,
            "attribute": [{"name": "ColorMode", "value": 0}],
        },
    )
