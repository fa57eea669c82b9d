"""What may happen to a scan at a beamline: one misfortune after the other, over real Channel Access and PVAccess, at one IOC.

IOC, session, service and catalog are processes of their own, as at a beamline. Each scan is held open until its live image has all frames
that it can have, so that there is no luck in what the table says.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.table import Scanned
from benchmarks.paths_hall import IDS, Hall, Scan, check_live_image, frames_live, hall, live_job, read
from benchmarks.serving import until
from ptyplugin.catalog import connect, search
from ptyplugin.jobs import JOB_FILE, Entry, open_read_only, read_snapshot, submit
from ptyplugin.model import Job

_ROWS, _COLUMNS = 7, 9
FRAMES = _ROWS * _COLUMNS
#: How long a live image has not changed when it has all that it will get, seconds; and how long the pause is, in the short form and in the
#: long one.
_STILL_S = 1.0
PAUSES_S = 6.0, 130.0
#: Largest error of a final image of a whole scan, and of one that was cut short or is a strip.
_GOOD, _FAIR = 0.02, 0.2


class Ground:
    """Where scans are measured, and what becomes of them is looked up."""

    def __init__(self, there: Hall, catalog: Any, pause_s: float) -> None:
        self.there, self.catalog, self.pause_s = there, catalog, pause_s
        self._numbers = count()

    @contextmanager
    def held(self, came: Scanned, do: str, profile: str, error: float = _GOOD, **order: Any) -> Iterator[Scan]:
        """A scan that stays open until its live image has all that it can have; then its final one is waited for.

        error: the largest that its final image may have
        """
        hold = self.there.folder / f"go-{next(self._numbers)}"
        order = {"rows": _ROWS, "columns": _COLUMNS, **order}
        with self.there.scan(do, profile, hold=str(hold), **order) as scan:
            try:
                yield scan
                until(lambda: scan.held or scan.end, "the plan is over")
                self.look_at_live(came, scan, profile)
            finally:
                hold.touch()
        self.look_at_final(came, scan, profile, error)

    def look_at_live(self, came: Scanned, scan: Scan, profile: str) -> None:
        """Note what the live image has when nothing is added to it any more."""
        live = live_job(self.there, scan)
        frames = self.still(live)
        handed = len(self.there.admitted(live))
        snapshot = read_snapshot(self.there.site.jobs / live.key)
        error = min(snapshot.errors.values()) if snapshot else float("nan")
        came.live = f"{frames} of {scan.announced or handed} frames, error {error:.3f}"
        came.want(frames == handed, f"{handed} frames were handed over, and {frames} are in the live image")
        check_live_image(self.catalog, profile, live, frames)

    def still(self, live: Entry) -> int:
        """Frames of the live image when it has all that were handed over, for a while."""
        seen, since_s = -1, time.monotonic()

        def is_still() -> bool:
            nonlocal seen, since_s
            frames = frames_live(self.there, live)
            if frames != seen or frames < len(self.there.admitted(live)):
                seen, since_s = frames, time.monotonic()
            return frames > 0 and time.monotonic() - since_s > _STILL_S

        until(is_still, "a live image of all frames")
        return seen

    def look_at_final(self, came: Scanned, scan: Scan, profile: str, error: float) -> Any:
        """Note what the final image is, and what its notes say."""
        result = self.final_image(scan, profile)
        if result is None:
            came.lost += 1
            came.final = str(self.there.entries(scan, "final")[0].sentence)
            return None
        frames, found, notes = len(result["positions_m"][:]), result.metadata["quality"]["error"], result.metadata["notes"]
        came.final = f"{frames} of {len(read(scan.file))} frames, error {found:.3f}"
        came.said = _once([came.said, scan.end["said"] or "", *scan.end["warned"], *notes])
        came.want(found <= error, f"error at most {error:g}")
        return result

    def final_image(self, scan: Scan, profile: str) -> Any:
        """It, from the catalog; None if it came to nothing."""
        until(lambda: self._states(scan) in (["published"], ["failed"]), "a final job that is done")
        if self._states(scan) == ["failed"]:
            return None
        (result,) = search(self.catalog[f"{profile}/processed/ptyplugin"], scan_uid=scan.uid)
        return result

    def _states(self, scan: Scan) -> list[str]:
        return [entry.state for entry in self.there.entries(scan, "final")]

    def says(self, came: Scanned, *parts: str) -> None:
        """It was said, whatever it was."""
        for part in parts:
            came.want(part in came.said, f"a sentence with {part!r}")

    def frames_live(self, came: Scanned, frames: int) -> None:
        """The live image had so many."""
        came.want(came.live.startswith(f"{frames} "), f"{frames} frames in the live image")

    def frames_final(self, came: Scanned, frames: int) -> None:
        """The final image has so many."""
        came.want(came.final.startswith(f"{frames} "), f"{frames} frames in the final image")


def _once(sentences: list[str]) -> str:
    """Those that are no part of another one."""
    told = [one for one in dict.fromkeys(sentences) if one and not any(one in other for other in sentences if other != one)]
    return " ".join(told)


def _on_the_way(log: str) -> str:
    """What a job's log says about the way of its frames."""
    return " ".join(line[line.rfind("frames", 0, line.find("came from")) :] for line in log.splitlines() if "came from" in line)


def _detector_off(ground: Ground, came: Scanned) -> None:
    with ground.held(came, "fly", "file", _FAIR, faults={"DetectorOff": 30}, patience_s=1.0) as scan:
        pass
    came.want(scan.end["ended"] == "fail", "the run fails")
    ground.says(came, "detector (SIM:det:HDF1:NumCaptured_RBV) had nothing new for 1.0 s", "exit status 'fail'")
    ground.frames_live(came, 30)
    ground.frames_final(came, 30)


def _motor_stalled(ground: Ground, came: Scanned) -> None:
    with ground.held(came, "fly", "file", _FAIR, faults={"MotorStalled": 20}):
        pass
    ground.says(came, "was a motor stalled?")
    ground.frames_final(came, FRAMES)


def _ioc_restarted_between(ground: Ground, came: Scanned) -> None:
    there = ground.there
    there.ioc.stop()
    there.bring_back_ioc()
    with ground.held(came, "fly", "pva", visible=False) as scan:
        until(lambda: scan.held, "all frames are measured")
        live = live_job(there, scan)
        ground.still(live)
        there.mount(scan)
        came.said = _on_the_way(there.said(live))
    ground.says(came, "came from the spool of SIM:Pva1:Image")
    ground.frames_live(came, FRAMES)
    ground.frames_final(came, FRAMES)


def _ioc_killed_within(ground: Ground, came: Scanned) -> None:
    there = ground.there
    with ground.held(came, "fly", "file", _FAIR, rows=10, columns=20, patience_s=1.0) as scan:
        until(lambda: scan.announced > 40, "it flies")
        there.ioc.kill()
        killed_s = time.monotonic()
        until(lambda: scan.held, "the plan is over")
        over_s = time.monotonic() - killed_s
        there.ioc.restart()
    came.said += f" It said so within {over_s:.0f} s."
    ground.says(came, "the fly scan ended early", "Does its IOC run", "exit status 'fail'")
    ground.frames_final(came, scan.announced)
    after = Scanned("the scan after it")
    with ground.held(after, "fly", "file"):
        pass
    ground.frames_final(after, FRAMES)
    came.missed += [f"the scan after it: {missed}" for missed in after.missed]
    came.lost += after.lost


def _lost_and_doubled(ground: Ground, came: Scanned) -> None:
    there, faults = ground.there, {"DropFrames": 10, "DuplicateIds": 7}
    with ground.held(came, "fly", "pva", visible=False, faults=faults) as scan:
        until(lambda: scan.held, "all frames are measured")
        live, sent = live_job(there, scan), np.count_nonzero(read(scan.file, IDS) % 10)
        until(lambda: frames_live(there, live) == sent, "all frames that were sent are in the live image")
        there.mount(scan)
        until(lambda: frames_live(there, live) == FRAMES, "they are healed from the file")
        came.said = _on_the_way(there.said(live))
    ground.frames_live(came, FRAMES)
    ground.frames_final(came, FRAMES)


def _frames_before_positions(ground: Ground, came: Scanned) -> None:
    with ground.held(came, "fly", "file", faults={"LatePositions": 30}):
        pass
    ground.frames_final(came, FRAMES)


def _frames_after_positions(ground: Ground, came: Scanned) -> None:
    with ground.held(came, "fly", "file", _FAIR, faults={"CaptureOff": 40}, patience_s=1.0) as scan:
        pass
    came.want(scan.end["ended"] == "fail", "the run fails")
    ground.says(came, "capture (SIM:pos:NumCaptured_RBV) had nothing new for 1.0 s")
    ground.frames_live(came, 40)
    ground.frames_final(came, 40)


def _wrong_unit(ground: Ground, came: Scanned) -> None:
    with ground.there.scan("step", "step", points=10, faults={"WrongUnit": 1}) as scan:
        pass
    came.want(ground.final_image(scan, "step") is None, "it is refused")
    came.said = str(ground.there.entries(scan, "final")[0].sentence)
    came.live, came.final = f"{len(ground.there.entries(scan, 'live'))} jobs", "refused"
    came.want(ground.there.entries(scan, "live") == [], "no live job")
    ground.says(came, "in micrometres and taken for millimetres")


def _settling(ground: Ground, came: Scanned) -> None:
    there, usual = ground.there, ground.there.ioc.command
    there.ioc.stop()
    there.ioc.command = [*usual, "--imperfection", "settling_m=6e-5"]
    there.ioc.restart()
    with ground.held(came, "fly", "file"):
        pass
    there.ioc.stop()
    there.ioc.command = usual
    there.ioc.restart()
    ground.says(came, "frames far outside of the scan (was the stage still on its way?): 29 of 63")
    ground.frames_final(came, FRAMES - 29)


def _one_line(ground: Ground, came: Scanned) -> None:
    with ground.held(came, "fly", "file", _FAIR, rows=1, columns=30):
        pass
    ground.says(came, "is one line of")
    ground.frames_live(came, 30)
    ground.frames_final(came, 30)


def _paused(ground: Ground, came: Scanned) -> None:
    """Meanwhile another job gets the ranks."""
    there, hold = ground.there, ground.there.folder / "go-paused"
    with there.scan("step", "step", ophyd=True, points=27, pause_after=15, hold=str(hold)) as scan:
        until(lambda: scan.paused, "it is paused")
        end_s = time.monotonic() + ground.pause_s
        ground.look_at_live(came, scan, "step")
        another = _another_job(there)
        until(lambda: another in [entry.key for entry in _published(there)], "another job has the ranks meanwhile")
        time.sleep(max(0.0, end_s - time.monotonic()))
        came.want(there.entries(scan, "live")[0].state in ("running", "queued"), "the live job waits")
        hold.touch()
    ground.look_at_final(came, scan, "step", _GOOD)
    ground.frames_final(came, 27)


def _another_job(there: Hall) -> str:
    """Hand over once more, with another recipe, what was done before; its key."""
    done = next(entry for entry in _published(there) if entry.purpose == "final")
    job = Job.from_bytes((there.site.jobs / done.key / JOB_FILE).read_bytes())
    return submit(there.site, job.model_copy(update={"recipe": "DM(21)"}))


def _published(there: Hall) -> list[Entry]:
    with open_read_only(there.site.ledger) as ledger:
        return ledger.list(state="published")


def _back_to_back(ground: Ground, came: Scanned) -> None:
    scans = []
    for _ in range(2):
        with ground.there.scan("fly", "file", rows=_ROWS, columns=_COLUMNS) as scan:
            scans.append(scan)
    parts = [Scanned("") for _ in scans]
    for part, scan in zip(parts, scans, strict=True):
        ground.look_at_final(part, scan, "file", _GOOD)
        ground.frames_final(part, FRAMES)
        came.missed += part.missed
        came.lost += part.lost
    came.final = "; ".join(part.final for part in parts)
    came.live = f"{sum(len(ground.there.entries(scan, 'live')) for scan in scans)} jobs"
    came.want(came.live == "2 jobs", "a live job of each")


def _aborted(ground: Ground, came: Scanned) -> None:
    with ground.held(came, "fly", "file", _FAIR, abort_after=30, period_s=0.02) as scan:
        pass
    came.want(scan.end["ended"] == "abort", "the run is aborted")
    ground.says(came, "exit status 'abort'")
    ground.frames_final(came, scan.announced)


def _overwritten(ground: Ground, came: Scanned) -> None:
    for _ in range(2):
        with ground.held(came, "fly", "file", file_name="always") as scan:
            pass
        scan.file.unlink()
        (ground.there.folder / "mounted" / scan.file.name).unlink()
    ground.says(came, "before this run wrote into it anew")
    ground.frames_final(came, FRAMES)


MISFORTUNES: Mapping[str, Callable[[Ground, Scanned], None]] = {
    "the detector falls silent": _detector_off,
    "a motor stands still": _motor_stalled,
    "the IOC ends between scans and comes back": _ioc_restarted_between,
    "the IOC is killed within a scan": _ioc_killed_within,
    "frames lost and doubled over PV Access": _lost_and_doubled,
    "frames before their positions": _frames_before_positions,
    "frames after the last position": _frames_after_positions,
    "motor records in mm that mean um": _wrong_unit,
    "rows that settle from far outside": _settling,
    "one line": _one_line,
    "paused": _paused,
    "two scans back to back": _back_to_back,
    "aborted": _aborted,
    "a file that is written anew": _overwritten,
}
#: In the short form.
QUICK = ("the detector falls silent", "the IOC ends between scans and comes back", "motor records in mm that mean um", "aborted")


def beamline(is_short: bool) -> list[Scanned]:
    """All of them, or some."""
    return came_of(QUICK, PAUSES_S[0]) if is_short else came_of(tuple(MISFORTUNES), PAUSES_S[1])


def came_of(names: tuple[str, ...], pause_s: float) -> list[Scanned]:
    """These misfortunes, one after the other in one hall."""
    with tempfile.TemporaryDirectory(prefix="ptyplugin-faults-") as folder, hall(Path(folder)) as there:
        catalog = connect(there.site, there.catalog.api_key)
        ground = Ground(there, catalog, pause_s)
        try:
            return [_came_of(name, ground) for name in names]
        finally:
            catalog.context.close()


def _came_of(name: str, ground: Ground) -> Scanned:
    came, begun_s = Scanned(name), time.monotonic()
    try:
        MISFORTUNES[name](ground, came)
    except (AssertionError, OSError, RuntimeError, LookupError, ValueError) as error:
        came.missed.append(f"{type(error).__name__}: {error}"[:300])
    came.said = came.said.replace(str(ground.there.folder), "FOLDER")
    came.seconds = time.monotonic() - begun_s
    sys.stderr.write(f"{name}: {came.seconds:.0f} s{''.join(f'; MISSED {each}' for each in came.missed)}\n")
    return came
