"""The job that runs, over Channel Access and PVAccess, from a daemon that is killed, restarted and told to cancel."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from at_work import at_work
from typer.testing import CliRunner

from ptyplugin.api.looking import FramePositions, look
from ptyplugin.cli.app import app
from ptyplugin.io.live_view import LiveView
from ptyplugin.jobs import Ledger, ProgressFile, submit, write_snapshot
from ptyplugin.model import FramesError, LedgerError, Progress, Site, SiteError, Snapshot
from ptyplugin.service import Daemon, Inline
from ptyplugin.service.epics import screens
from ptyplugin.service.epics.images import pictures
from ptyplugin.service.epics.records import IMAGES, INVALID, LONG_TEXT, MAJOR, RECORDS, cut, outdated, readings
from ptyplugin.service.epics.screens import Epics

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "TEST:Ptycho:"


def snapshot(job: str, iteration: int = 1, side: int = 160) -> Snapshot:
    random = np.random.default_rng(iteration)
    wave = np.exp(1j * random.normal(size=(side, side), scale=0.3)).astype(np.complex64)
    probe = np.ones((2, 128, 128), np.complex64)
    probe[1] *= 3
    pixel = 1e-6 / (side - 128)
    return Snapshot(job, "DM", iteration, 20, {"error": 0.25}, 3, time.time(), wave, probe, (pixel, pixel), (0.0, 0.0))


@pytest.fixture
def epics_environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Ports that are free, for servers and clients of this test."""
    sockets = [socket.socket() for _ in range(4)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    channel, repeater, access, search = (str(one.getsockname()[1]) for one in sockets)
    for one in sockets:
        one.close()
    said = {
        "EPICS_CA_ADDR_LIST": "127.0.0.1",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": channel,
        "EPICS_CA_REPEATER_PORT": repeater,
        "EPICS_CAS_SERVER_PORT": channel,
        "EPICS_CAS_BEACON_PORT": repeater,
        "EPICS_PVA_ADDR_LIST": "127.0.0.1",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_SERVER_PORT": access,
        "EPICS_PVA_BROADCAST_PORT": search,
        "EPICS_PVAS_SERVER_PORT": access,
        "EPICS_PVAS_BROADCAST_PORT": search,
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    for name in ("EPICS_CAS_INTF_ADDR_LIST", "EPICS_PVAS_INTF_ADDR_LIST"):
        monkeypatch.delenv(name, raising=False)
    return said


@pytest.fixture
def ask(epics_environment: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """A client in a process of its own."""
    pytest.importorskip("p4p", reason="EPICS is not installed")
    client = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("epics_client.py"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdin is not None
    assert client.stdout is not None

    def of(*words: Any) -> Any:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(json.dumps(words) + "\n")
        client.stdin.flush()
        return json.loads(client.stdout.readline())

    yield of
    client.stdin.close()
    client.stdout.close()
    try:
        client.wait(20)
    except subprocess.TimeoutExpired:
        client.kill()
        client.wait()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(home=tmp_path / "home", ranks=1)


@pytest.mark.system
def test_a_job_is_seen_and_cancelled_over_epics(site, make_job, until, ask, monkeypatch) -> None:
    monkeypatch.setattr(screens, "FIRST_WAIT_S", 0.1)
    # The clients' variable, which the service may have for its own questions to a beamline.
    monkeypatch.setenv("EPICS_CA_SERVER_PORT", "5064")
    job = make_job(slow=0.2)

    def write(progress: Progress) -> None:
        """What rank 0 does."""
        if not progress.snapshot:
            write_snapshot(site.jobs / job.key, snapshot(job.key, progress.iteration))
            daemon._hear(replace(progress, snapshot=True))

    def value(name: str) -> Any:
        return ask("get", PREFIX + name)["value"]

    def fail(*_: object) -> None:
        raise FramesError("Öffnung prüfen, 5 µm. " * 40)

    with Daemon(site, Inline("stub_solving:solve"), on_progress=write) as daemon, Epics(site, daemon, PREFIX) as epics:
        with at_work(daemon.run):
            assert value("JobState") == "Idle"
            ask("watch", PREFIX + "Image:Phase")
            nothing = ask("image", 0)
            assert (nothing["shape"], nothing["dtype"], nothing["id"], nothing["mean"]) == ([1, 1], "float32", 0, 0.0)
            assert nothing["attributes"] == {"ColorMode": 0, "Title": "Phase of the object", "Units": "rad"}
            submit(site, job)
            image = ask("image", 1)
            assert (image["shape"], image["dtype"], image["dimension"]) == ([160, 160], "float32", [160, 160])
            assert image["bytes"] == 160 * 160 * 4
            assert abs(image["mean"]) < 0.1 < image["spread"] < 0.5
            assert image["highest"] < 0.9, "a few odd pixels are cut off"
            until(lambda: value("Width") == pytest.approx(5.0))
            told = image["attributes"]
            assert (told["Job"], told["ScanID"], told["RunUID"], told["Units"], told["ColorMode"]) == (job.key, 7, "run-1", "rad", 0)
            assert told["PixelSizeX"] == pytest.approx(1e-6 / 32)
            assert told["OriginY"] == pytest.approx(-2e-6)
            later = ask("image", image["count"])
            assert later["id"] > image["id"]
            assert later["taken_s"] > image["taken_s"]
            until(lambda: daemon.ledger.show(job.key).state == "solved")
            until(lambda: value("JobState") == "Solved")
            numbers = {name: value(name) for name in ("Job", "ScanID", "RunUID", "Frames", "Progress", "ETA", "Purpose", "Queued")}
            assert numbers == {
                "Job": job.key,
                "ScanID": 7,
                "RunUID": "run-1",
                "Frames": 3,
                "Progress": 100.0,
                "ETA": 0.0,
                "Purpose": "final",
                "Queued": 0,
            }
            progress = ask("get", PREFIX + "Progress")
            assert (progress["unit"], progress["severity"]) == ("%", 0)
            assert ask("ca_get", PREFIX + "JobState") == {"value": "Solved", "severity": 0, "unit": ""}
            assert ask("ca_get", PREFIX + "RunUID")["value"] == "run-1"
            assert ask("ca_get", PREFIX + "Progress") == {"value": 100.0, "severity": 0, "unit": "%"}

            # Nobody but the service says how far a job is, and there is nothing to cancel now.
            assert ask("put", PREFIX + "Progress", 3.0)["refused"]
            assert ask("ca_put", PREFIX + "Progress", 3.0)["refused"]
            assert "no job runs" in ask("put", PREFIX + "Cancel", 1)["refused"]
            assert ask("ca_put", PREFIX + "Cancel", 1)["refused"]

            # The process is killed: the daemon does not mind, and another one takes its place.
            first = epics.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            # It runs still when the process is there again, however long that takes.
            slow = make_job(5, slow=10)
            submit(site, slow)
            until(lambda: epics.pid not in (None, first), 90.0)
            until(lambda: (value("Job"), value("JobState")) == (slow.key, "Running"), 90.0)
            assert ask("ca_put", PREFIX + "Cancel", 0) == {}
            assert ask("ca_put", PREFIX + "Cancel", 1) == {}
            until(lambda: value("JobState") == "Cancelled")
            assert value("Cancel") == "Done"
            assert daemon.ledger.show(slow.key).state == "cancelled"
            assert "cancelled while it ran" in value("Message")
            # A message with letters of several bytes, longer than there is room.
            monkeypatch.setattr("stub_solving._misbehave", fail)
            failing = make_job(9)
            submit(site, failing)
            until(lambda: (value("Job"), value("JobState")) == (failing.key, "Failed"))
            said = ask("ca_get", PREFIX + "Message")
            assert said["value"].startswith("Öffnung prüfen, 5 µm.")
            assert (said["value"][-1], said["severity"], len(said["value"].encode()) <= LONG_TEXT) == ("…", MAJOR, True)
            assert ask("get", PREFIX + "JobState") == {"value": "Failed", "severity": MAJOR, "unit": ""}
        last = epics.pid
    assert last is not None
    assert not Path(f"/proc/{last}").exists()


def test_a_process_that_does_not_start_is_tried_again_and_nobody_waits(
    site, make_job, until, monkeypatch, caplog, epics_environment
) -> None:
    monkeypatch.setattr(screens, "FIRST_WAIT_S", 0.01)
    started: list[float] = []

    def refuse(*_: object, **__: object) -> None:
        started.append(time.monotonic())
        raise OSError("no processes left")

    monkeypatch.setattr(screens.subprocess, "Popen", refuse)
    with Daemon(site, Inline("stub_solving:solve")) as daemon, Epics(site, daemon, PREFIX):
        until(lambda: len(started) >= 3)
        submit(site, make_job())
        daemon.run_once()
        assert daemon.ledger.show(make_job().key).state == "solved"
    assert "EPICS cannot be served now (no processes left)" in caplog.text


@pytest.mark.parametrize("prefix", ["", "with space:", "ä:", "x" * 41])
def test_what_is_no_prefix_is_said(site, prefix) -> None:
    with Daemon(site, Inline("stub_solving:solve")) as daemon, pytest.raises(SiteError, match="no prefix of EPICS names"):
        Epics(site, daemon, prefix)


def test_without_the_packages_the_command_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(screens, "find_spec", lambda name: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    file = tmp_path / "site.toml"
    file.write_text(f'home = "{tmp_path / "home"}"\nhttp_port = 0\n')
    result = CliRunner().invoke(app, ["serve", "--site", str(file), "--epics", PREFIX])
    assert result.exit_code == 1
    assert "EPICS needs caproto and p4p, not installed here: pip install 'ptyplugin[epics]'." in " ".join(result.stderr.split())


def test_the_job_that_is_shown(site, make_job) -> None:
    with pytest.raises(LedgerError):
        look(site)
    with Ledger(site.ledger) as ledger:
        assert look(site) is None
        assert {name: reading.value for name, reading in readings(None, {}, 0.0).items()}["JobState"] == 0
        for seed in range(2):
            ledger.put(make_job(seed))
        started = [ledger.claim(60.0), ledger.claim(60.0)]
        other = make_job().source.model_copy(update={"run_uid": "run-2"})
        live, final = (make_job(3).model_copy(update={"source": other, "purpose": purpose}) for purpose in ("live", "final"))
        ledger.put(live)
        ledger.put(final)
        started.insert(0, ledger.claim(60.0))
        seen = look(site)
        assert (seen.job.key, seen.job.purpose, seen.waiting) == (live.key, "live", 1)
        for entry in started:
            ledger.failed(entry, f"{entry.key} was too dark.")
        seen = look(site)
        assert seen.job.key == started[-1].key
        now = readings(seen, {}, time.time())
        assert (now["JobState"].value, now["JobState"].severity) == (5, 2)
        assert now["Message"].value.endswith("was too dark.")
        doubtful = readings(
            replace(seen, job=replace(seen.job, state="solved", sentence=None)),
            {"error": 0.1, "verdict": "doubtful", "verdict_reasons": ["The error was still falling."]},
            time.time(),
        )
        assert (doubtful["Verdict"].value, doubtful["Verdict"].severity, doubtful["Error"].value) == (2, 1, 0.1)
        assert (doubtful["Message"].value, doubtful["Message"].severity) == ("The error was still falling.", 1)
        assert set(now) | {"Cancel"} == {record.name for record in RECORDS}


def test_positions_of_a_job_without_its_folder_are_not_known(tmp_path, make_job) -> None:
    assert FramePositions(tmp_path).first(3) is None
    (tmp_path / "job.json").write_bytes(make_job().to_bytes())
    np.testing.assert_array_equal(FramePositions(tmp_path).first(2), [[0.0, 0.0], [0.0, 1e-6]])


def test_the_images_for_screens_show_their_contrast_though_pixels_are_odd_and_parts_dark() -> None:
    """A screen lets its colours run from the lowest value to the highest."""
    y, x = np.mgrid[:50, :80] / 10
    wave = ((1 + 0.1 * np.sin(3 * x)) * np.exp(0.2j * np.cos(4 * y))).astype(np.complex64)
    wave[20, 30] = 50 * np.exp(3j)
    seen = np.ones((50, 80), np.float32)
    seen[40:] = 0
    wave[40:] = 7
    view, job = LiveView(wave, seen, None, (1e-8, 2e-8), (0.0, 0.0)), SimpleNamespace(key="k", scan_id=1, run_uid="run-1")
    assert view.size_m == pytest.approx((5e-7, 1.6e-6))
    ends = {name: (picture.pixels.min(), picture.pixels.max()) for name, picture in pictures(view, job, 1, 9, 0.0).items()}
    assert ends["Image:Phase"] == pytest.approx((-0.2, 0.2), abs=0.01)
    assert ends["Image:Amplitude"] == pytest.approx((0.9, 1.1), abs=0.01)


#: What the Display Builder of Phoebus knows: properties of every widget, and of those on the screen. It says nothing of others.
COMMON = {"name", "x", "y", "width", "height", "visible", "tooltip", "rules"}
COLOURED = {"font", "foreground_color", "background_color", "transparent"}
TEXT = COLOURED | {"horizontal_alignment", "vertical_alignment", "rotation_step", "wrap_words"}
PV = {"pv_name", "border_alarm_sensitive"}
AXIS = {"visible", "title", "minimum", "maximum"}
WIDGETS = {
    "label": ("2.0.0", TEXT | {"text", "auto_size"}),
    "textupdate": ("2.0.0", TEXT | PV | {"format", "precision", "show_units"}),
    "progressbar": ("2.0.0", PV | {"fill_color", "background_color", "horizontal", "limits_from_pv", "minimum", "maximum"}),
    "action_button": ("3.0.0", COLOURED | PV | {"actions", "text", "enabled", "show_confirm_dialog", "confirm_message", "password"}),
    "image": (
        "2.0.0",
        PV
        | {"color_map", "color_bar", "x_axis", "y_axis", "data_width", "data_height", "autoscale", "show_toolbar", "interpolation"}
        | {"background_color", "unsigned", "minimum", "maximum"},
    ),
}
PARTS = {
    "rules": {"rule"},
    "rules/rule": {"exp", "pv_name"},
    "color_bar": {"visible", "bar_size"},
    "x_axis": AXIS,
    "y_axis": AXIS,
    "color_map": {"name"},
    "actions": {"action"},
}
COLOUR_MAPS = {"VIRIDIS", "GRAY", "JET", "SPECTRUM", "HOT", "COOL", "SHADED", "MAGMA"}


def test_the_screen_for_phoebus_has_variables_and_properties_that_are_there() -> None:
    display = ElementTree.parse(ROOT / "examples" / "phoebus" / "ptyplugin.bob").getroot()
    assert (display.tag, display.get("version")) == ("display", "2.0.0")
    assert {place.tag for place in display} == {"name", "macros", "width", "height", "widget"}
    assert [place.tag for place in display.findall("macros/*")] == ["P"]
    # All that is served is on the screen, and nothing else; only images need PVAccess.
    there = {f"$(P){record.name}" for record in RECORDS} | {f"pva://$(P){name}" for name in IMAGES}
    assert {place.text for place in display.iter("pv_name")} == there
    for widget in display.iter("widget"):
        version, known = WIDGETS[widget.get("type", "")]
        assert widget.get("version") == version
        assert {place.tag for place in widget} <= COMMON | known, widget.findtext("name")
        for name, parts in PARTS.items():
            assert {part.tag for part in widget.findall(f"{name}/*")} <= parts
        assert widget.findtext("color_map/name", "GRAY") in COLOUR_MAPS
        x, y, width, height = (int(widget.findtext(name, "-1")) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + width <= int(display.findtext("width", "0"))
        assert y + height <= int(display.findtext("height", "0"))
    for rule in display.iter("rule"):
        assert (rule.get("prop_id"), rule.get("out_exp")) == ("visible", "false")
        asked = [re.findall(r"\bpv(?:Str)?(\d)\b", place.get("bool_exp", "")) for place in rule.findall("exp")]
        assert sorted(number for one in asked for number in one) == [str(number) for number in range(len(rule.findall("pv_name")))]
        assert {place.findtext("value") for place in rule.findall("exp")} <= {"true", "false"}
    # "Iteration 12 of 0" is nothing to say of a live job.
    assert {widget.findtext("name") for widget in display.iter("widget") if '"pv0 == 0"' in ElementTree.tostring(widget, "unicode")} == {
        "Label Iteration",
        "Iteration",
        "Label of",
        "Iterations",
    }
    (action,) = display.iter("action")
    assert (action.get("type"), action.findtext("pv_name"), action.findtext("value")) == ("write_pv", "$(P)Cancel", "1")
    # Bytes of an array are shown as text.
    assert {widget.findtext("format") for widget in display.iter("widget") if widget.findtext("name") == "Message"} == {"6"}


def test_the_reference_tells_of_every_variable_what_it_is() -> None:
    text = (ROOT / "docs" / "reference" / "epics.md").read_text(encoding="utf-8")
    variables = text[: text.index("\n## ")]
    told = {name: (kind, about) for name, kind, about in re.findall(r"^\| `([A-Za-z:]+)` \| (.+?) \| (.+) \|$", variables, re.MULTILINE)}
    served = {record.name: record.kind + (f", {record.unit}" if record.unit else "") for record in RECORDS} | dict.fromkeys(
        IMAGES, "NTNDArray"
    )
    assert {name: kind for name, (kind, _) in told.items()} == served
    for record in RECORDS:
        assert [choice for choice in record.choices if not re.search(rf"\b{choice}\b", told[record.name][1])] == []
    assert f"{LONG_TEXT} bytes" in told["Message"][1]


def test_texts_are_cut_where_their_bytes_end(site, make_job) -> None:
    assert cut("as it is", 8) == "as it is"
    assert cut("ä" * 300, 500) == "ä" * 248 + "…"
    with Ledger(site.ledger) as ledger:
        ledger.put(make_job())
        ledger.failed(ledger.claim(60.0), "zu dunkel: Öffnung prüfen, 5 µm. " * 30)
    message = readings(look(site), {}, time.time())["Message"]
    assert 497 <= len(message.value.encode()) <= LONG_TEXT
    assert (message.value[-1], message.severity) == ("…", MAJOR)


def test_what_may_not_be_so_any_more_is_invalid(site, make_job, tmp_path) -> None:
    live = make_job().model_copy(update={"purpose": "live"})
    with Ledger(site.ledger) as ledger:
        ledger.put(live)
        ledger.claim(60.0)
    (site.jobs / live.key).mkdir(parents=True)
    ProgressFile(site.jobs / live.key)(Progress(live.key, "DM", 67, 30, 60.0, {"error": 0.25}, frames=192))
    seen = look(site)
    well = readings(seen, {}, time.time())
    assert (well["JobState"].severity, well["Message"].value, well["Iteration"].value, well["Iterations"].value) == (0, "", 67, 0)
    # A live job has no end of its own.
    assert np.isnan([well["Progress"].value, well["ETA"].value]).all()
    late = readings(seen, {}, time.time() + 61.0)
    assert (late["JobState"].severity, late["Message"].severity, late["Error"].severity) == (INVALID, INVALID, 0)
    assert "look whether it is stuck" in late["Message"].value
    old = outdated(well, "the ledger cannot be read.")
    assert {reading.severity for reading in old.values()} == {INVALID}
    assert (old["Message"].value, old["JobState"].value) == ("the ledger cannot be read.", well["JobState"].value)
