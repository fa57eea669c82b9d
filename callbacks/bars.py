"""ProgressBars: what a session subscribes to see scan and reconstruction advance, ``RE.subscribe(ProgressBars())``."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ptyplugin.jobs import open_read_only, read_progress
from ptyplugin.model import LedgerError, Site, load_site

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_log = logging.getLogger(__name__)

#: How often the reconstruction is looked at, seconds.
LOOK_S = 0.5
#: How long a scan whose stop document never comes keeps its bar after its last document, seconds.
_FORGOTTEN_S = 3600.0


@dataclass(slots=True)
class _Run:
    """What is known of the run that is measured. ``descriptors``: whether they are of the primary stream."""

    uid: str
    scan_id: Any
    total: int | None
    done: int = 0
    descriptors: dict[Any, bool] = field(default_factory=dict)
    heard: float = field(default_factory=time.monotonic)
    sentence: str = ""

    def hear(self, name: str, document: Mapping[str, Any]) -> None:
        """Count the points of the primary stream, as far as the document tells of them; other runs may be open too."""
        if name == "descriptor" and document.get("run_start") == self.uid:
            self.descriptors[document["uid"]] = document.get("name") == "primary"
        if self.uid == document.get("run_start") or document.get("descriptor") in self.descriptors:
            self.heard = time.monotonic()
        if self.descriptors.get(document.get("descriptor")):
            self.done = max(self.done, points_announced(name, document))


class ProgressBars:
    """Shows a bar for the points of a run, and one for its reconstruction as soon as that runs, until the run ends.

    While IPython waits at its prompt, as it does for a run that is paused, there are none.

    Called with each document it only puts it aside; a thread of its own draws. Where the console is no terminal that
    can redraw, nothing is drawn.

    Args:
        site: tells where the jobs are; by default the file that PTYPLUGIN_SITE names, or the user's own folder.
        console: where to draw; stderr by default.
    """

    def __init__(self, site: Site | None = None, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=True, highlight=False)
        self._site = site or load_site()
        self._queue: queue.SimpleQueue[tuple[str, Mapping[str, Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="ptyplugin-bars", daemon=True).start()

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Take a document, as the RunEngine gives it."""
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._queue.put((name, document))

    def _work(self) -> None:
        while True:
            name, document = self._queue.get()
            if name != "start":
                continue
            try:
                self._follow(_begun(document))
            # Whatever a bar meets, the next scan has one again, and no scan is disturbed.
            except Exception as error:
                _log.debug("the bars of this scan ended: %s", error, exc_info=True)

    def _follow(self, run: _Run) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as bars:
            scan, reconstruction = bars.add_task(_name(run), total=run.total), None
            while self._hear(run):
                # A paused scan has a prompt, over which its bars would be drawn.
                (bars.stop if _somebody_types() else bars.start)()
                bars.update(scan, completed=run.done)
                reconstruction = self._look(run, bars, reconstruction)
        if run.sentence:
            self._console.print(f"{_name(run)}: {run.done} points, {run.sentence}.", markup=False)

    def _hear(self, run: _Run) -> bool:
        """Take what has come of the run; False when it is over, or when nothing is heard of it any more."""
        until = time.monotonic() + LOOK_S
        while (left := until - time.monotonic()) > 0:
            try:
                name, document = self._queue.get(timeout=left)
            except queue.Empty:
                break
            run.hear(name, document)
            if name == "stop" and document.get("run_start") == run.uid:
                return False
        return time.monotonic() - run.heard < _FORGOTTEN_S

    def _look(self, run: _Run, bars: Progress, task: TaskID | None) -> TaskID | None:
        """Bring the bar of the run's reconstruction up to date, if it has one that runs."""
        try:
            with open_read_only(self._site.ledger) as ledger:
                running = [entry for entry in ledger.list(run_uid=run.uid) if entry.state == "running"]
        except LedgerError:
            return task
        progress = read_progress(self._site.jobs / running[0].key) if running else None
        if progress is None:
            return task
        error = "".join(f", error {value:.3g}" for name, value in progress.errors.items() if name == "error")
        frames = f"{progress.frames} frames, " if progress.frames else ""
        run.sentence = f"reconstruction: {frames}iteration {progress.iteration}{error}; ptyplugin.live() shows it"
        # A live job has no end of its own: what it shows is how much of the scan is in its image.
        done, total = (progress.frames, run.total) if progress.frames else (progress.iteration, progress.iterations)
        task = bars.add_task("reconstruction", total=total) if task is None else task
        bars.update(task, description=f"reconstruction: {progress.stage}{error}", completed=done, total=total)
        return task


def _somebody_types() -> bool:
    """Whether IPython, if this is its process, waits at its prompt."""
    module = sys.modules.get("IPython")
    prompt = getattr(module.get_ipython(), "pt_app", None) if module else None
    return prompt is not None and bool(prompt.app.is_running)


def _begun(start: Mapping[str, Any]) -> _Run:
    total = start.get("num_points")
    return _Run(str(start.get("uid")), start.get("scan_id"), total if isinstance(total, int) else None)


def _name(run: _Run) -> str:
    return "scan" if run.scan_id is None else f"scan {run.scan_id}"


def points_announced(name: str, document: Mapping[str, Any]) -> int:
    """How many points of its stream there are after this document; 0 if it does not say so."""
    if name == "event":
        return int(document["seq_num"])
    if name == "event_page":
        return int(max(document["seq_num"], default=0))
    # A fly scan has no events: frames are announced in stretches, [start, stop).
    return int(document["seq_nums"]["stop"]) - 1 if name == "stream_datum" else 0
