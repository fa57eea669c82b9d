"""What the tests of the simulated IOC share: sessions in child processes, and frames judged against the camera's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
from numpy.typing import NDArray

from ptyplugin.sim.ioc.imperfections import Imperfections
from ptyplugin.sim.ioc.instrument import Instrument
from ptyplugin.sim.ioc.process import Ioc
from ptyplugin.sim.ioc.trajectory import Trajectory

#: Positions (point, yx) of the step scans, micrometres.
POSITIONS = [(0.0, 0.0), (1.5, -2.0), (-3.0, 4.0), (2.0, 2.25)]
#: Fly scan: 10 lines of 12 frames at 300 frames a second.
FLIGHT = Trajectory.grid(10, 12, 0.8, period_s=1 / 300, turn_s=0.02)
#: How long a session may take, seconds.
_LONGEST_S = 100.0
SESSION = Path(__file__).with_name("ioc_session.py")


@dataclass
class Seen:
    """What a session gave: its documents, and what else it saw."""

    documents: list[tuple[str, dict[str, Any]]]
    seen: dict[str, Any]

    def named(self, name: str) -> list[dict[str, Any]]:
        return [document for kind, document in self.documents if kind == name]

    def run(self, number: int) -> Seen:
        """The documents of one run of several."""
        starts = [index for index, (name, _) in enumerate(self.documents) if name == "start"] + [len(self.documents)]
        return Seen(self.documents[starts[number] : starts[number + 1]], self.seen)

    def file(self, data_key: str) -> Path:
        resource = next(each for each in self.named("stream_resource") if each["data_key"] == data_key)
        return Path(unquote(urlparse(resource["uri"]).path))


def session(ioc: Ioc, scenario: str, *arguments: str) -> Seen:
    """Run a scenario of ``ioc_session.py`` to its end; end or kill the IOC, and start it again, whenever it asks for that."""
    command = [sys.executable, str(SESSION), scenario, str(ioc.folder), *arguments]
    environment = {**os.environ, **ioc.environment, "OPHYD_CONTROL_LAYER": "caproto"}
    errors = ioc.folder / f"{scenario}.log"
    line, ended = "", []
    with (
        errors.open("w") as log,
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        end = threading.Timer(_LONGEST_S, process.kill)
        end.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            for line in process.stdout:
                if line in ("stop\n", "kill\n"):
                    {"stop\n": ioc.stop, "kill\n": ioc.kill}[line]()
                    ended.append(ioc.process.returncode)
                    ioc.restart()
                    process.stdin.write("done\n")
                    process.stdin.flush()
            process.wait()
        finally:
            end.cancel()
            process.kill()
    assert process.returncode == 0, errors.read_text()[-4000:] + (ioc.folder / "ioc.log").read_text()[-2000:]
    given = json.loads(line)
    return Seen(given["documents"], {**given["seen"], "ended": ended})


def read(path: Path, dataset: str = "/entry/data/data") -> NDArray[Any]:
    with h5py.File(path) as file:
        return np.asarray(file[dataset])


def chi_square(frames: NDArray[np.uint16], positions_m: NDArray[np.float64]) -> float:
    """Per pixel: 1 for frames (frame, y, x) of the camera at positions (frame, yx) or on ways (frame, step, yx), more for others."""
    camera = Instrument(Imperfections()).camera
    ways = positions_m.reshape(len(frames), -1, 2)
    expected = np.array([np.mean([camera.expected(position) for position in way], axis=0) for way in ways])
    lit = expected > 20
    return float(((frames - expected)[lit] ** 2 / expected[lit]).mean())
