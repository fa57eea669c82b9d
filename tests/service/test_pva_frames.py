"""Frames over PV Access into the spool: as they come, after losses, and when the IOC is taken away."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lz4.block
import numpy as np
import pytest
from at_work import at_work, until

from ptyplugin.io.spool import Detector, spool_folder
from ptyplugin.io.ways import SpoolWay
from ptyplugin.model import LiveTable, PvaChannels, Site, ZmqDocuments
from ptyplugin.profiles import load_profile
from ptyplugin.service.sources import Sources
from ptyplugin.service.sources.pva_frames import PvaFrames, channels_of, frame_of
from ptyplugin.sim.eiger_stream import bslz4

pytest.importorskip("p4p", reason="PV Access needs p4p: pip install 'ptyplugin[epics]'")
from p4p.nt import NTNDArray
from p4p.server import Server
from p4p.server.thread import SharedPV

CHANNEL = "PTYPLUGIN:TEST:Pva1:Image"
SIM = load_profile("sim")
PROFILE = SIM.model_copy(update={"live": LiveTable(pva=CHANNEL)})
DETECTOR = Detector(beamline=SIM.beamline, stream=SIM.detector.stream, key=SIM.detector.key)
COUNTS = np.random.default_rng(8).poisson(4, (30, 20, 33)).astype(np.uint16)


class Camera:
    """An IOC with one NTNDArray, on ports of its own at the loopback; its clients find it by the environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.start()
        for name, value in self.server.conf().items():
            client = {"EPICS_PVAS_SERVER_PORT": "EPICS_PVA_SERVER_PORT", "EPICS_PVAS_BROADCAST_PORT": "EPICS_PVA_BROADCAST_PORT"}.get(
                name, name
            )
            monkeypatch.setenv(client, str(value))
        monkeypatch.setenv("EPICS_PVA_ADDR_LIST", "127.0.0.1")
        monkeypatch.setenv("EPICS_PVA_AUTO_ADDR_LIST", "NO")

    def start(self, conf: dict[str, str] | None = None) -> None:
        self.pv = SharedPV(initial=NTNDArray().type())
        providers = [{CHANNEL: self.pv}]
        self.server = Server(providers, isolate=True) if conf is None else Server(providers, conf=conf, useenv=False)

    def restart(self) -> None:
        conf = self.server.conf()
        self.server.stop()
        self.start(conf)

    def post(self, number: int, codec: str = "none", counts: np.ndarray | None = None) -> None:
        frame = COUNTS[number % 30] if counts is None else counts
        value = NTNDArray().wrap(frame)
        value.uniqueId = number
        value.dataTimeStamp.secondsPastEpoch, value.dataTimeStamp.nanoseconds = 1_000_000 + number, 5
        if codec != "none":
            data = lz4.block.compress(frame.tobytes(), store_size=False) if codec == "lz4" else bslz4(frame)[12:]
            value.value = ("ubyteValue", np.frombuffer(data, np.uint8))
            value.codec.name, value.codec.parameters, value.compressedSize = codec, 6, len(data)
        self.pv.post(value)


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[Camera]:
    camera = Camera(monkeypatch)
    yield camera
    camera.server.stop()


@contextmanager
def recording(site: Site, profiles: Any = (PROFILE,)) -> Iterator[PvaFrames]:
    source = PvaFrames(profiles, site)
    with at_work(source.run):
        yield source


def run_begun_now(site: Site) -> SpoolWay:
    return SpoolWay(site, DETECTOR, time.time())


def send(camera: Camera, source: PvaFrames, numbers: range, codec: str = "none") -> None:
    """Slowly enough for nothing to be squashed."""
    for number in numbers:
        before = source.state.counts["frames"]
        camera.post(number, codec)
        until(lambda before=before: source.state.counts["frames"] > before)  # type: ignore[misc]


@pytest.mark.parametrize("codec", ["none", "lz4", "bslz4"])
def test_frames_are_recorded_as_they_come(tmp_path: Path, camera: Camera, codec: str) -> None:
    site = Site(home=tmp_path)
    with recording(site) as source:
        until(lambda: source.state.connected)
        way = run_begun_now(site)
        send(camera, source, range(10, 20), codec)
        assert way.kind() == (COUNTS.shape[1:], np.uint16)
        assert way.has(np.arange(11)).tolist() == [True] * 10 + [False]
        np.testing.assert_array_equal(way.read(np.arange(10)), COUNTS[10:20])
        assert source.state.counts == {"frames": 10}


def test_a_frame_from_before_the_run_is_none_of_its(tmp_path: Path, camera: Camera) -> None:
    """Whoever connects gets the last frame of the scan before."""
    site = Site(home=tmp_path)
    camera.post(4)
    with recording(site) as source:
        until(lambda: source.state.counts["frames"] == 1)
        time.sleep(0.02)
        way = run_begun_now(site)
        send(camera, source, range(5, 8))
        assert way.kind() is not None
        np.testing.assert_array_equal(way.read(np.arange(3)), COUNTS[5:8])


def test_losses_duplicates_and_colours(tmp_path: Path, camera: Camera) -> None:
    site = Site(home=tmp_path)
    with recording(site) as source:
        until(lambda: source.state.connected)
        way = run_begun_now(site)
        send(camera, source, range(3))
        camera.post(2)
        until(lambda: source.state.counts["duplicates"] == 1)
        send(camera, source, range(6, 8))
        camera.post(8, counts=np.zeros((4, 5, 3), np.uint8))
        until(lambda: source.state.counts["refused"] == 1)
        assert "let the detector send monochrome frames" in str(source.state.last_error)
        send(camera, source, range(9, 10))
        assert source.state.counts["lost"] == 4
        assert way.has(np.arange(10)).tolist() == [number in (0, 1, 2, 6, 7, 9) for number in range(10)]


def test_an_ioc_that_is_taken_away_and_comes_back(tmp_path: Path, camera: Camera, caplog: pytest.LogCaptureFixture) -> None:
    site = Site(home=tmp_path)
    with recording(site) as source, caplog.at_level(logging.WARNING):
        until(lambda: source.state.connected)
        during = run_begun_now(site)
        send(camera, source, range(20, 23))
        camera.restart()
        until(lambda: source.state.counts["disconnected"] == 1)
        until(lambda: source.state.connected)
        time.sleep(0.02)
        after = run_begun_now(site)
        send(camera, source, range(1, 4))
        assert f"{CHANNEL} is not there any more: frames are recorded again when it comes back" in caplog.text
        assert source.state.counts["restarts"] == 1
        assert during.has(np.arange(4)).tolist() == [True, True, True, False]
        assert after.has(np.arange(4)).tolist() == [True, True, True, False]
        np.testing.assert_array_equal(after.read(np.arange(3)), COUNTS[1:4])


def test_the_recorder_itself_begun_anew(tmp_path: Path, camera: Camera) -> None:
    site = Site(home=tmp_path)
    for first in (0, 4):
        with recording(site) as source:
            until(lambda source=source: source.state.connected)  # type: ignore[misc]
            time.sleep(0.02)
            way = run_begun_now(site)
            # The last frame from before comes once more.
            before = source.state.counts["frames"]
            assert before == (1 if first else 0)
            if first:
                time.sleep(1.1)
                way = run_begun_now(site)
            send(camera, source, range(first, first + 4))
            assert way.has(np.arange(4)).all(), way.trouble
            np.testing.assert_array_equal(way.read(np.arange(4)), COUNTS[first : first + 4])


def test_a_channel_that_is_not_there_is_said(tmp_path: Path, camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    del camera
    monkeypatch.setattr("ptyplugin.service.sources.pva_frames._SEARCH_S", 0.1)
    live = PROFILE.live
    assert live is not None
    profile = PROFILE.model_copy(update={"live": live.model_copy(update={"pva": "NO:SUCH:Image"})})
    with recording(Site(home=tmp_path), [profile]) as source:
        until(lambda: "NO:SUCH:Image is not there: is its name right" in str(source.state.last_error))
        assert not source.state.connected


def test_a_channel_whose_folder_cannot_be_written_stops_no_other(tmp_path: Path, camera: Camera) -> None:
    site, other = Site(home=tmp_path), SIM.model_copy(update={"live": LiveTable(pva="PTYPLUGIN:TEST:Other")})
    site.spool.mkdir(parents=True)
    spool_folder(site, "PTYPLUGIN:TEST:Other").write_bytes(b"no folder")
    with recording(site, (other, PROFILE)) as source:
        until(lambda: source.state.connected)
        way = run_begun_now(site)
        send(camera, source, range(3))
        until(lambda: bool(way.has(np.arange(3)).all()))
        assert "1 channels cannot be recorded" in str(source.state.last_error)


def test_channels_are_those_of_the_profiles() -> None:
    other = PROFILE.model_copy(update={"beamline": "other"})
    (channel,) = channels_of([SIM, PROFILE, other, PROFILE])
    assert (channel.name, [each.beamline for each in channel.detectors]) == (CHANNEL, ["sim", "other"])


def test_an_update_without_a_frame_is_none() -> None:
    assert frame_of(NTNDArray().type()) is None


def test_the_service_records_what_its_profiles_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, camera: Camera) -> None:
    from ptyplugin.jobs import Ledger

    del camera
    asked = [PvaChannels(kind="pva", profiles=["sim"])]
    named = [ZmqDocuments(kind="zmq", address="127.0.0.1:1", profiles=["sim"])]
    with Ledger(tmp_path / "ledger.sqlite"):
        names = [state.name for state in Sources(Site(home=tmp_path, source=asked)).states()]
        assert names == ["frames over PVA"]
        assert "frames over PVA" not in [state.name for state in Sources(Site(home=tmp_path, source=named)).states()]
        monkeypatch.setattr("ptyplugin.service.sources.profiles.load_profile", lambda _: PROFILE)
        assert "frames over PVA" in [state.name for state in Sources(Site(home=tmp_path, source=named)).states()]
