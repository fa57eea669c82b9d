"""The process that serves them: ``python -m ptyplugin.service.epics PREFIX LOG_FORMAT``, started by the service.

On its standard input comes the site as a line of JSON, then anything whenever there is something new to see; when that ends, so does it.
"""

from __future__ import annotations

import logging
import math
import os
import select
import sys
import time
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from ptyplugin.api.looking import FramePositions, Sight, look
from ptyplugin.io import read_result
from ptyplugin.io.live_view import LiveView, view_of_result, view_of_snapshot
from ptyplugin.io.outcome import outcome_of
from ptyplugin.jobs import Order, give
from ptyplugin.model import JobError, PtypluginError, Site, Snapshot
from ptyplugin.service.complaints import Complaints
from ptyplugin.service.epics.ca import CaServer
from ptyplugin.service.epics.images import pictures
from ptyplugin.service.epics.pva import PvaServer
from ptyplugin.service.epics.records import Reading, outdated, readings
from ptyplugin.service.logs import LogFormat, set_up_logs

_log = logging.getLogger(__name__)

#: How often it looks although nobody rings, seconds; and the share of the time that images may take.
LOOK_S, SHARE = 0.5, 0.3
_IN = 0


class Screens:
    """Shows the job that runs on all servers; ``look`` now and then."""

    def __init__(self, site: Site, prefix: str) -> None:
        self._site = site
        self._complaints = Complaints(_log)
        self._running: str | None = None
        self._shown: dict[str, Reading] = {}
        self._image: tuple[str, str, float] | None = None
        self._size_m = (math.nan, math.nan)
        self._outcome: tuple[str, dict[str, Any]] = ("", {})
        self._positions: tuple[str, FramePositions] | None = None
        self._rest_until = 0.0
        self._servers = (PvaServer(prefix, self._cancel), CaServer(prefix, self._cancel))

    def look(self) -> float:
        """Post what is new; gives the seconds after which to look again, if nobody rings before."""
        try:
            sight = look(self._site)
        except PtypluginError as error:
            self._complaints.say(str(error))
            self._running = None
            self._post(outdated(self._shown, str(error)))
            return LOOK_S
        # The image first: numbers take a moment over Channel Access.
        rest_s = self._rest_until - time.monotonic()
        if sight and rest_s <= 0:
            begun = time.monotonic()
            self._show(sight)
            self._rest_until = time.monotonic() + (time.monotonic() - begun) * (1 / SHARE - 1)
        self._running = sight.job.key if sight and sight.job.state == "running" else None
        self._post(readings(sight, self._outcome_of(sight), time.time(), self._size_m))
        return min(rest_s, LOOK_S) if rest_s > 0 else LOOK_S

    def close(self) -> None:
        """Stop serving."""
        for server in self._servers:
            server.close()

    def _post(self, now: Mapping[str, Reading]) -> None:
        changed = {name: reading for name, reading in now.items() if not _same(self._shown.get(name), reading)}
        self._shown |= changed
        for server in self._servers:
            server.post(changed, time.time())

    def _show(self, sight: Sight) -> None:
        job = sight.job
        said = (job.key, "live", sight.snapshot.taken_s) if sight.snapshot else (job.key, "result", 0.0)
        if said == self._image or (sight.snapshot is None and (job.result is None or job.state == "running")):
            return
        try:
            view, more = self._view(sight)
            self._servers[0].show(pictures(view, job, *more))
            self._size_m = view.size_m
        except Exception as error:
            # The numbers are of use without the image.
            _log.debug("no image of job %s", job.key, exc_info=True)
            self._complaints.say(f"the image of job {job.key} is not shown over EPICS ({type(error).__name__}: {error})")
        self._image = said

    def _view(self, sight: Sight) -> tuple[LiveView, tuple[int, int, float]]:
        """What there is to see; after how many iterations, with how many frames, and when it was so."""
        job, snapshot = sight.job, sight.snapshot
        if snapshot is None:
            assert job.result is not None
            result = read_result(job.result)
            return view_of_result(result), (len(result.progress), len(result.positions_m), job.changed_s)
        if self._positions is None or self._positions[0] != job.key:
            self._positions = job.key, FramePositions(self._site.jobs / job.key)
        view = view_of_snapshot(snapshot, self._positions[1].first(snapshot.frames))
        return view, (snapshot.iteration, snapshot.frames, snapshot.taken_s)

    def _outcome_of(self, sight: Sight | None) -> dict[str, Any]:
        if sight is None or sight.job.state not in ("solved", "published"):
            return {}
        if self._outcome[0] != sight.job.key:
            self._outcome = sight.job.key, outcome_of(sight.job.result)
        return self._outcome[1]

    def _cancel(self) -> None:
        if self._running is None:
            raise JobError("no job runs that could be cancelled.")
        _log.info("job %s is to be cancelled: somebody asked for it over EPICS", self._running)
        give(self._site, Order(order="cancel", job=self._running))


def _same(one: Reading | None, other: Reading) -> bool:
    # NaN is not itself.
    return one is not None and one.severity == other.severity and (one.value == other.value or repr(one.value) == repr(other.value))


def _warm_up() -> None:
    """What the first image needs is imported before anybody waits for it (1 s)."""
    wave = np.ones((8, 8), np.complex64)
    view_of_snapshot(Snapshot("", "", 0, 0, {}, 1, 0.0, wave, wave[None], (1.0, 1.0), (0.0, 0.0)), np.zeros((1, 2)))


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(_IN, 1)
        if not byte:
            break
        line += byte
    return line


def main() -> None:
    """Serve until standard input ends."""
    prefix, log_format = sys.argv[1:]
    set_up_logs(cast("LogFormat", log_format))
    _warm_up()
    screens = Screens(Site.model_validate_json(_first_line()), prefix)
    _log.info("EPICS: %sJobState and others are served by process %d", prefix, os.getpid())
    try:
        while True:
            wait_s = screens.look()
            if select.select([_IN], [], [], wait_s)[0] and not os.read(_IN, 1 << 16):
                break
    finally:
        screens.close()
