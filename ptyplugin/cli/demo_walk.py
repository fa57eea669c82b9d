"""The walk of `ptyplugin demo`: scan, solve, publish, and read everything back from the catalog."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ptyplugin.cli.demo_beamlines import DemoBeamline, Way, demo_beamline
from ptyplugin.cli.demo_pictures import Pictures, live_pictures
from ptyplugin.cli.screen import can_redraw, pulse
from ptyplugin.cli.sim_site import WARMING, own_site, why_cold
from ptyplugin.model import JobError, PtypluginError, Reconstruction, Site, SolverError
from ptyplugin.model import Progress as Iteration

if TYPE_CHECKING:
    from ptyplugin.service import Daemon

#: How often the catalog is asked for the result, and how long at the most, seconds.
_ASK_S, _PATIENCE_S = 0.25, 600.0
#: What stays for the reader of --out, by name.
PICTURE_FILE, LOG_FILE, LIVE_FOLDER = "demo.png", "demo.log", "live"


@dataclass(frozen=True, slots=True)
class Demo:
    """What a scan of the demo gave.

    phase_rms_rad: of the object against the truth, central region; latency_s: from the last frame to the image in the catalog
    """

    uid: str
    scan_id: int
    frames: int
    phase_rms_rad: float
    latency_s: float
    picture: Path

    def __str__(self) -> str:
        return (
            f"object phase RMS against the truth {self.phase_rms_rad:.3f} rad, {self.frames} frames, "
            f"{self.latency_s:.1f} s from the last frame to the image in the catalog"
        )


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that was measured: its uid, and when (Unix seconds) its last frame was taken."""

    uid: str
    last_frame_s: float


@dataclass(slots=True)
class _Board:
    """The bars of one demo. frames: of a scan, once that is known"""

    bars: Progress
    frames: int = 0

    def how_far(self) -> str:
        """What is being done, in one line."""
        going = [task for task in self.bars.tasks if not task.finished]
        said = [task.description + (f" {task.completed:.0f}/{task.total:.0f}" if task.total else "") for task in going]
        return ", ".join(said) or "waiting for the result in the catalog"

    @contextmanager
    def working(self, what: str, done: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A bar while something runs; gives a function that is told how far it is."""
        task = self.bars.add_task(what, total=total)
        yield lambda count: self.bars.update(task, completed=count)
        self.bars.update(task, description=done, total=total or 1, completed=total or 1)


@dataclass(frozen=True, slots=True)
class _Service:
    """The daemon, in a thread of this process. errors: what ended it"""

    daemon: Daemon
    errors: list[BaseException]

    def warmth(self) -> tuple[bool, str]:
        """Whether its ranks are warm, and why they will not be."""
        slots = self.daemon.slots
        trouble = next((slot.trouble for slot in slots if slot.trouble), "") or next(map(str, self.errors), "")
        return all(slot.is_warm for slot in slots), trouble


def run_demo(out: Path, way: Way, *, frames: int, modes: int, ranks: int, scans: int, console: Console) -> tuple[list[Demo], Pictures]:
    """Scan, reconstruct, publish, and query the results back from the catalog; and the pictures on the way. Nothing runs on afterwards.

    out: gets the detector's files, the catalog, the result file, ``site.toml``, ``demo.log``, ``demo.png``, and ``live``, pictures
        from while the scan went on

    Raises:
        PtypluginError: what went wrong, in one sentence.
    """
    out = out.absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"the folder {out} cannot be made ({error.strerror}): choose another one with --out.") from error
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars, ExitStack() as stack:
        stack.enter_context(_log_kept_in(out / LOG_FILE))
        board = _Board(bars)
        if not can_redraw():
            stack.enter_context(pulse(board.how_far))
        with board.working("starting the catalog (a Tiled server)", "catalog"):
            site = stack.enter_context(own_site(out, ranks))
        serving = stack.enter_context(ExitStack())
        service = serving.enter_context(_daemon(site, board))
        with board.working("making a sample and a beamline", "beamline"):
            beamline = stack.enter_context(demo_beamline(way, out / "data", frames, modes))
        board.frames = beamline.frames
        try:
            return _scan_and_wait(beamline, site, service, board, out, modes, scans)
        finally:
            # Before the beamline: after a Ctrl-C, what that was told last is answered meanwhile.
            serving.close()


@contextmanager
def _log_kept_in(path: Path) -> Iterator[None]:
    """What the service logs and the RunEngine prints goes to a file: the terminal has the bars, and one sentence at the end if it fails."""
    everything, ours = logging.getLogger(), logging.getLogger("ptyplugin")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before = ours.level
    everything.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        with redirect_stdout(handler.stream):
            yield
    finally:
        everything.removeHandler(handler)
        handler.close()
        ours.setLevel(before)


def _scan_and_wait(
    beamline: DemoBeamline, site: Site, service: _Service, board: _Board, out: Path, modes: int, scans: int
) -> tuple[list[Demo], Pictures]:
    from ptyplugin.catalog import connect

    client = connect(site)
    try:
        with live_pictures(site, out / LIVE_FOLDER) as pictures:
            with board.working(WARMING, "solver"):
                trouble = why_cold(service.warmth)
            if trouble:
                board.bars.console.print(trouble, soft_wrap=True, markup=False)
            runs = _scan(beamline, client, site, board, modes, scans)
        found = [_wait_for_result(client, site, run, service.errors) for run in runs]
        # From here on everything that is shown comes out of the catalog.
        with board.working("reading the results back and drawing", PICTURE_FILE, total=scans) as tell:
            done = []
            for run, (result, latency_s) in zip(runs, found, strict=True):
                done.append(_shown(beamline, run, result, latency_s, out))
                tell(len(done))
    finally:
        client.context.close()
    return done, pictures


def _shown(beamline: DemoBeamline, run: _Run, result: Any, latency_s: float, out: Path) -> Demo:
    """The result from the catalog, judged and drawn; of several the picture shows the last."""
    from ptyplugin.io.picture import save_png

    reconstruction: Reconstruction = result.reconstruction()
    rms, truth = _judge(beamline, reconstruction)
    save_png(reconstruction, out / PICTURE_FILE, truth=truth)
    return Demo(run.uid, int(result.metadata["scan_id"]), len(reconstruction.positions_px), rms, latency_s, out / PICTURE_FILE)


@contextmanager
def _daemon(site: Site, board: _Board) -> Iterator[_Service]:
    """The service as `ptyplugin serve` has it, in a thread of this process; its ranks are processes of their own."""
    from ptyplugin.service import Daemon
    from ptyplugin.service.operations import Operations
    from ptyplugin.service.sources import Sources

    tasks: dict[str, TaskID] = {}  # one per job, from its first iteration on: the bars stand in the order of the way

    def tell(event: Iteration) -> None:
        # A live job has no end of its own: what it shows is how much of the scan is in its image.
        what, done, total = (
            ("live image", event.frames, board.frames) if event.frames else ("reconstruction", event.iteration, event.iterations)
        )
        if event.job not in tasks:
            tasks[event.job] = board.bars.add_task(what)
        board.bars.update(tasks[event.job], description=f"{what}: {event.stage}", completed=done, total=total)

    errors: list[BaseException] = []

    def work() -> None:
        try:
            daemon.run()
        except Exception as error:
            errors.append(error)

    # What is set for a beamline's service notifies nobody of a demo.
    nobody: dict[str, str] = {}
    with Daemon(site, on_progress=tell) as daemon, Sources(site) as sources, Operations(site, daemon, sources, nobody):
        thread = threading.Thread(target=work, name="ptyplugin-daemon")
        thread.start()
        try:
            yield _Service(daemon, errors)
        finally:
            daemon.stop()
            thread.join()
    for task in board.bars.tasks:
        if task.id in tasks.values():
            board.bars.update(task.id, description=task.description.partition(":")[0])


def _scan(beamline: DemoBeamline, client: Any, site: Site, board: _Board, modes: int, scans: int) -> list[_Run]:
    """Run the plan as often as asked, with the raw writer and AutoReconstruct subscribed."""
    from bluesky.callbacks.buffer import BufferingWrapper
    from bluesky_tiled_plugins import TiledWriter

    from ptyplugin.callbacks import AutoReconstruct

    profile = beamline.profile
    profile = profile.model_copy(update={"reconstruction": profile.reconstruction.model_copy(update={"probe_modes": modes})})
    raw = client[site.raw_path.format(beamline=profile.beamline)]
    beamline.RE.md["scan_id"] = len(raw)
    writer = BufferingWrapper(TiledWriter(raw, batch_size=1, backup_directory=str(site.home / "raw-backup")))
    for callback in (writer, AutoReconstruct(profile=profile, site=site)):
        beamline.RE.subscribe(callback)
    runs = [_measure(beamline, board, "scan" if scans == 1 else f"scan {number} of {scans}") for number in range(1, scans + 1)]
    with board.working("writing the raw data into the catalog", "raw data in the catalog"):
        writer.shutdown(wait=True)
    return runs


def _measure(beamline: DemoBeamline, board: _Board, name: str) -> _Run:
    from bluesky.run_engine import RunEngineInterrupted

    from ptyplugin.callbacks.bars import points_announced

    last = time.time()
    with board.working(name, name, total=beamline.frames) as tell:

        def watch(kind: str, document: dict[str, Any]) -> None:
            nonlocal last
            if frames := points_announced(kind, document):
                last = time.time()
                tell(frames)

        try:
            (uid,) = beamline.RE(beamline.plan(), watch)
        except RunEngineInterrupted:
            # The RunEngine pauses at a Ctrl-C and waits for orders; whoever watches a demo wants it to end.
            raise KeyboardInterrupt from None
    return _Run(str(uid), last)


def _wait_for_result(client: Any, site: Site, run: _Run, daemon_errors: list[BaseException]) -> tuple[Any, float]:
    """The published result of the run, from the catalog, and how many seconds after its last frame it was there.

    Raises:
        PtypluginError: the job failed, the daemon ended, or it took too long.
    """
    from ptyplugin.jobs import open_read_only

    folder = client[site.processed_path.format(beamline="sim")]
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        if daemon_errors:
            raise daemon_errors[0]
        with open_read_only(site.ledger) as ledger:
            for entry in [entry for entry in ledger.list(run_uid=run.uid) if entry.purpose == "final"]:
                if entry.state == "published":
                    return folder[entry.key], entry.changed_s - run.last_frame_s
                # What a daemon would wait for, for days if need be, nobody mends during a demo.
                waits = entry.state == "queued" and entry.starts > 0 and entry.tries == 0
                if waits or entry.state in {"failed", "cancelled"}:
                    raise SolverError(f"job {entry.key} {'waits' if waits else entry.state}: {entry.sentence}")
        time.sleep(_ASK_S)
    raise SolverError(f"run {run.uid[:8]} had no result after {_PATIENCE_S:.0f} s: see {site.jobs} for the job's log.")


def _judge(beamline: DemoBeamline, reconstruction: Reconstruction) -> tuple[float, NDArray[np.complex128]]:
    """The phase error against the truth, and the truth on the reconstruction's grid."""
    from ptyplugin.sim.metric import phase_rms, truth_on_canvas

    image = reconstruction.object[0]
    used = len(reconstruction.positions_px)
    if used != beamline.frames:
        raise PtypluginError(f"{used} of {beamline.frames} frames were reconstructed: the demo expects all of them.")
    positions_px = beamline.camera.position_px(reconstruction.positions_m)
    truth = truth_on_canvas(beamline.camera.sample, positions_px, reconstruction.positions_px, image.shape)
    return phase_rms(image, truth, reconstruction.positions_px, reconstruction.probe.shape[-1]), truth
