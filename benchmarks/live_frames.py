"""Frames of a scan that goes on, as a live job reads them: how late are they, and are they all there and the right ones?

    python -m benchmarks.live_frames [--frames 3000] [--rate 300] [--side 128]

A sender of its own, in a process of its own, sends frames at ``--rate`` a second: into an HDF5 file in SWMR mode (bitshuffle/LZ4, a
frame a chunk, flushed each), over PV Access (NTNDArray, without compression), and as an Eiger's stream (bslz4). Each frame has its
number and the time at which it was sent in its first pixels. The service's recorders fill the spool, in a process of their own as
there; a ``LiveFrames`` in this process reads each frame as soon as it can. Where frames are sent, the file is shown only at the end, and
heals what was lost. Delays are from the sending (a moment before the flush) to the counts in the reader's memory, on one clock; the
first frames, until it is known that the file shows nothing, are counted with the others. A last part loses each sixth frame of the stream.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from ptyplugin.io.live_frames import LiveFrames
from ptyplugin.io.spool import Detector
from ptyplugin.io.ways import FileWay, SpoolWay
from ptyplugin.model import EigerStream, LiveTable, Site
from ptyplugin.profiles import load_profile
from ptyplugin.service.sources.eiger_frames import EigerFrames
from ptyplugin.service.sources.pva_frames import PvaFrames

CHANNEL = "PTYPLUGIN:BENCH:Pva1:Image"
#: How often a live job looks for new frames, seconds.
_LOOK_S = 0.01
_PATIENCE_S = 30.0

_SIM = load_profile("sim")
PROFILE = _SIM.model_copy(update={"live": LiveTable(pva=CHANNEL)})
DETECTOR = Detector(beamline=_SIM.beamline, stream=_SIM.detector.stream, key=_SIM.detector.key)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one way. delays_s: (frame,) of those that came as they were sent; healed: those that the file had to give."""

    name: str
    sent: int
    admitted: int
    right: bool
    healed: int
    delays_s: NDArray[np.float64]

    def __str__(self) -> str:
        median, late, worst = (np.percentile(self.delays_s, share) * 1e3 for share in (50, 99, 100))
        ids = "ids as sent" if self.right else "WRONG IDS"
        return (
            f"{self.name:30s} {self.admitted} of {self.sent} frames, {ids}, {self.healed} healed from the file; "
            f"delay {median:.1f} ms median, {late:.1f} ms 99 %, {worst:.1f} ms worst"
        )


def stamped(number: int, frame: NDArray[np.uint16], at_s: float) -> NDArray[np.uint16]:
    """The frame with its number, counted from 1, and a time, Unix seconds, in its first pixels."""
    stamp = np.array([at_s]).view(np.uint16)
    frame[0, 0], frame[0, 1] = (number + 1) & 0xFFFF, (number + 1) >> 16
    frame[0, 2 : 2 + len(stamp)] = stamp
    return frame


def stamp_of(counts: NDArray[np.uint16]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Numbers (frame,) and times (frame,) in counts (frame, y, x)."""
    numbers = counts[:, 0, 0].astype(np.int64) + (counts[:, 0, 1].astype(np.int64) << 16) - 1
    return numbers, np.ascontiguousarray(counts[:, 0, 2:6]).view(np.float64)[:, 0]


def pace(count: int, rate: float) -> Iterator[int]:
    """Numbers at a rate per second."""
    begun_s = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begun_s + number / rate - time.monotonic()))
        yield number


def pictures(side: int) -> NDArray[np.uint16]:
    """Some frames (frame, y, x), made in advance."""
    return np.random.default_rng(1).poisson(3, (16, side, side)).astype(np.uint16)


@contextmanager
def swmr_file(path: Path, side: int) -> Iterator[Any]:
    """A detector's dataset (frame, 1, y, x) in a file in SWMR mode."""
    with h5py.File(path, "w", libver="latest") as file:
        shape, most = (0, 1, side, side), (None, 1, side, side)
        data = file.create_dataset("data", shape, "u2", maxshape=most, chunks=(1, 1, side, side), **hdf5plugin.Bitshuffle())
        file.swmr_mode = True
        yield data


def send_to_file(path: Path, count: int, rate: float, side: int) -> None:
    """The detector that writes a file. The time in a frame is that of its flush, as far as that can be known before."""
    frames = pictures(side)
    with swmr_file(path, side) as data:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in pace(count, rate):
            data.resize(number + 1, axis=0)
            data[number, 0] = stamped(number, frames[number % 16], time.time())
            data.flush()
        sys.stdin.readline()


def send_over_pva(path: Path, count: int, rate: float, side: int) -> None:
    """The detector whose PVA plugin sends, and whose file shows nothing before its end."""
    from p4p.nt import NTNDArray
    from p4p.server import Server
    from p4p.server.thread import SharedPV

    frames, wrapper, kept = pictures(side), NTNDArray(), []
    pv = SharedPV(initial=wrapper.type())
    with Server([{CHANNEL: pv}], isolate=True) as server:
        print(server.conf()["EPICS_PVAS_SERVER_PORT"], server.conf()["EPICS_PVAS_BROADCAST_PORT"], flush=True)
        sys.stdin.readline()
        for number in pace(count, rate):
            frame = stamped(number, frames[number % 16].copy(), time.time())
            value = wrapper.wrap(frame)
            value.uniqueId = number + 1
            pv.post(value)
            kept.append(frame)
        _write_all(path, kept, side)
        sys.stdin.readline()


def send_as_eiger(path: Path, count: int, rate: float, side: int, lose: int = 0) -> None:
    """The detector that streams; every ``lose``-th frame is not sent, but in the file at the end."""
    from ptyplugin.sim.eiger_stream import EigerStreamer

    frames, kept = pictures(side), []
    with EigerStreamer() as streamer:
        print(streamer.address, flush=True)
        sys.stdin.readline()
        streamer.begin(1, count, (side, side))
        for number in pace(count, rate):
            frame = stamped(number, frames[number % 16].copy(), time.time())
            if not lose or number % lose != lose - 1:
                streamer.send_image(1, number, frame)
            kept.append(frame)
        streamer.end(1)
        _write_all(path, kept, side)
        sys.stdin.readline()


def _write_all(path: Path, frames: list[NDArray[np.uint16]], side: int) -> None:
    hidden = path.with_suffix(".part")
    with swmr_file(hidden, side) as data:
        data.resize(len(frames), axis=0)
        data[:, 0] = np.stack(frames)
    hidden.rename(path)


@contextmanager
def sender(way: str, path: Path, numbers: argparse.Namespace) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that sends; and the line that it said when it was ready."""
    words = [sys.executable, "-m", "benchmarks.live_frames", "--send", way, "--file", str(path)]
    words += ["--frames", str(numbers.frames), "--rate", str(numbers.rate), "--side", str(numbers.side)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.communicate(input="\n\n", timeout=60)


def go(process: subprocess.Popen[str]) -> None:
    """Let it begin."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def follow(name: str, frames: LiveFrames, count: int, healed: Callable[[], int]) -> Outcome:
    """Read each frame as soon as it can be, as a live job does."""
    left, seen, delays = np.arange(count), np.full(count, -1), np.zeros(count)
    until_s = time.monotonic() + _PATIENCE_S
    while left.size and time.monotonic() < until_s:
        near = left[:512]
        there = near[frames.has(near)]
        if there.size:
            numbers, sent_s = stamp_of(frames.read(there))
            seen[there], delays[there] = numbers, time.time() - sent_s
            left, until_s = np.setdiff1d(left, there), time.monotonic() + _PATIENCE_S
        time.sleep(_LOOK_S)
    admitted = seen >= 0
    late = healed()
    on_time = np.sort(delays[admitted])[: max(1, int(admitted.sum()) - late)]
    return Outcome(name, count, int(admitted.sum()), bool(np.array_equal(seen[admitted], np.flatnonzero(admitted))), late, on_time)


@contextmanager
def recorder(way: str, address: str, home: Path) -> Iterator[Callable[[], int]]:
    """A recorder of the service in a process of its own; gives, afterwards, how many frames it kept."""
    words = [sys.executable, "-m", "benchmarks.live_frames", "--record", way, "--file", str(home), "--address", address]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()

        def kept() -> int:
            go(process)
            assert process.stdout is not None
            return int(process.stdout.readline())

        try:
            yield kept
        finally:
            process.communicate(input="\n\n", timeout=60)


def record(way: str, address: str, home: Path) -> None:
    """The recorder's process."""
    site, stop = Site(home=home), threading.Event()
    source = (
        PvaFrames([PROFILE], site)
        if way == "pva"
        else EigerFrames(EigerStream(kind="eiger", address=address, profiles=["sim"]), [PROFILE], site)
    )
    thread = threading.Thread(target=source.run, args=(stop,))
    thread.start()
    while not source.state.connected:
        time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.readline()
    print(source.state.counts["frames"], flush=True)
    sys.stdin.readline()
    stop.set()
    thread.join()


def over_swmr(folder: Path, asked: argparse.Namespace) -> Outcome:
    """HDF5 in place."""
    path = folder / "swmr.h5"
    with sender("file", path, asked) as (process, _):
        frames = LiveFrames("bench", [FileWay(path, "data", None, None)])
        go(process)
        try:
            return follow("HDF5, SWMR", frames, asked.frames, lambda: 0)
        finally:
            frames.close()


def over_spool(way: str, folder: Path, asked: argparse.Namespace) -> Outcome:
    """By a recorder and its spool; the file shows itself at the end."""
    site, path = Site(home=folder / way, data_roots=[folder]), folder / f"{way}.h5"
    with sender(way, path, asked) as (process, said):
        if way == "pva":
            tcp, udp = said.split()
            os.environ |= {"EPICS_PVA_ADDR_LIST": "127.0.0.1", "EPICS_PVA_AUTO_ADDR_LIST": "NO"}
            os.environ |= {"EPICS_PVA_SERVER_PORT": tcp, "EPICS_PVA_BROADCAST_PORT": udp}
        with recorder(way, said, site.home) as kept:
            begun_s = time.time()
            go(process)
            frames = LiveFrames("bench", [FileWay(path, "data", None, None), SpoolWay(site, DETECTOR, begun_s)])
            name = {"pva": "PV Access", "eiger": "Eiger's stream", "lossy": "Eiger's stream, each 6th lost"}[way]
            try:
                return follow(name, frames, asked.frames, lambda: asked.frames - kept())
            finally:
                frames.close()


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m benchmarks.live_frames", description=__doc__.splitlines()[0])
    words.add_argument("--frames", type=int, default=3000)
    words.add_argument("--rate", type=float, default=300.0, help="frames a second")
    words.add_argument("--side", type=int, default=128, help="px")
    words.add_argument("--send", choices=["file", "pva", "eiger", "lossy"], help=argparse.SUPPRESS)
    words.add_argument("--record", choices=["pva", "eiger", "lossy"], help=argparse.SUPPRESS)
    words.add_argument("--address", help=argparse.SUPPRESS)
    words.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.record:
        record(asked.record, asked.address, asked.file)
        return
    if asked.send:
        numbers = (asked.file, asked.frames, asked.rate, asked.side)
        send = {"file": send_to_file, "pva": send_over_pva, "eiger": send_as_eiger, "lossy": lambda *all_: send_as_eiger(*all_, lose=6)}
        send[asked.send](*numbers)
        return
    with TemporaryDirectory(prefix="ptyplugin-") as folder:
        print(
            f"{asked.frames} frames of {asked.side} x {asked.side} px at {asked.rate:g} a second; looked for each {_LOOK_S * 1e3:g} ms",
            flush=True,
        )
        print(over_swmr(Path(folder), asked), flush=True)
        for way in ("pva", "eiger", "lossy"):
            print(over_spool(way, Path(folder), asked), flush=True)


if __name__ == "__main__":
    main()
