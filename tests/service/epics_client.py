"""A client of the service's process variables, in a process of its own: the environment says where they are.

Reads words from standard input, one JSON list a line, and answers each with a line of JSON.
"""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any

import numpy as np


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and math.isnan(value) else value


class Client:
    def __init__(self) -> None:
        from p4p.client.thread import Context

        self.pva = Context("pva")
        self.images: list[tuple[float, Any]] = []
        self.subscriptions: list[Any] = []

    def get(self, name: str) -> Any:
        """Over PVAccess."""
        value = self.pva.get(name, timeout=30)
        raw = value.raw
        display = raw.get("display")
        is_enum = hasattr(raw.value, "choices")
        return {
            "value": raw.value.choices[raw.value.index] if is_enum else _plain(raw.value),
            "severity": value.severity,
            "unit": display.units if display is not None and not is_enum else "",
        }

    def put(self, name: str, value: Any) -> Any:
        """Over PVAccess."""
        try:
            self.pva.put(name, value, timeout=30)
        except Exception as error:
            return {"refused": str(error)}
        return {}

    def watch(self, name: str) -> Any:
        """Have images collected."""
        self.subscriptions.append(self.pva.monitor(name, lambda image: self.images.append((time.time(), image))))
        return {}

    def image(self, after: int) -> Any:
        """The last image when more than ``after`` have come."""
        end = time.monotonic() + 30
        while len(self.images) <= after:
            if time.monotonic() > end:
                return {"refused": "no image came"}
            time.sleep(0.002)
        at_s, image = self.images[-1]
        raw = image.raw
        return {
            "count": len(self.images),
            "at_s": at_s,
            "taken_s": image.timestamp,
            "id": raw.uniqueId,
            "shape": list(image.shape),
            "dtype": str(image.dtype),
            "mean": float(image.mean()) if image.size else None,
            "spread": float(image.std()) if image.size else None,
            "highest": float(image.max()) if image.size else None,
            "bytes": raw.uncompressedSize,
            "dimension": [one.size for one in raw.dimension],
            "attributes": {name: _plain(value) for name, value in image.attrib.items()},
        }

    def ca_get(self, name: str) -> Any:
        """Over Channel Access."""
        from caproto.sync.client import read

        answer = read(name, repeater=False, data_type="control", timeout=20)
        choices = getattr(answer.metadata, "enum_strings", None)
        value = answer.data[0] if len(answer.data) else ""
        text = bytes(answer.data).decode() if answer.data_type.name == "CTRL_CHAR" else _plain(value)
        return {
            "value": choices[int(value)].decode() if choices else text,
            "severity": int(answer.metadata.severity),
            "unit": _plain(getattr(answer.metadata, "units", b"")),
        }

    def ca_put(self, name: str, value: Any) -> Any:
        """Over Channel Access."""
        from caproto.sync.client import write

        try:
            write(name, value, repeater=False, notify=True, timeout=20)
        except Exception as error:
            return {"refused": type(error).__name__}
        return {}


def main() -> None:
    client = Client()
    for line in sys.stdin:
        what, *words = json.loads(line)
        print(json.dumps(getattr(client, what)(*words)), flush=True)
    for subscription in client.subscriptions:
        subscription.close()
    client.pva.close()


if __name__ == "__main__":
    main()
