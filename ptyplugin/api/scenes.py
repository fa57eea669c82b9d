"""What a picture of the job that runs shows next: from the site's own folders, or from the catalog where these are on another machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any, Protocol, cast

from ptyplugin.api.connections import client_of
from ptyplugin.api.looking import FramePositions, Sight, look, of_one_scan, preview_of
from ptyplugin.io import read_result
from ptyplugin.io.display import said_length
from ptyplugin.io.live_view import LiveView, view_of_result, view_of_snapshot
from ptyplugin.jobs import Entry
from ptyplugin.model import CatalogError, ErrorName, PtypluginError, Reconstruction, Site

_BETWEEN, _DOT = "   ·   ", "  ·  "
#: So many jobs may have a place in the catalog and no image yet.
_BEGUN = 10
#: Letters of a sentence that fit into a line.
_WIDEST = 130


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What to draw; what is equal in ``mark`` looks the same.

    purpose: of the job whose image it is, or that has none yet; errors, frames: by iteration, as in a picture's Told
    """

    mark: tuple[Any, ...]
    scan_id: int | None
    purpose: str | None
    headline: str
    facts: str
    errors: dict[ErrorName, list[tuple[int, float]]]
    frames: list[tuple[int, int]]
    view: LiveView | None


class Stage(Protocol):
    """Where scenes come from. Used by one thread at a time."""

    def scene(self) -> Scene | None:
        """What there is now; None if there was no job yet.

        Raises:
            PtypluginError: nothing can be seen now; the sentence says why.
        """
        ...


def stage_of(site: Site) -> Stage:
    """The site's folders where they are on this machine, else its catalog."""
    return FolderStage(site) if site.ledger.exists() or site.tiled_uri is None else CatalogStage(site)


class _Curves:
    """Errors and frames of one job, as they came along. One that begins again, for it was killed or made way, counts on."""

    def __init__(self) -> None:
        self._last, self._before = 0, 0
        self.errors: dict[ErrorName, list[tuple[int, float]]] = {}
        self.frames: list[tuple[int, int]] = []

    def add(self, iteration: int, errors: Mapping[str, float | None], frames: int) -> None:
        """Once for each iteration, however often it is seen."""
        if self.frames and iteration == self._last:
            return
        if iteration < self._last:
            self._before += self._last
        self._last, iteration = iteration, self._before + iteration
        self.frames.append((iteration, frames))
        for name, value in errors.items():
            curve = self.errors.setdefault(cast("ErrorName", name), [])
            # One that is not measured at each iteration is told again until it is.
            if value is not None and isfinite(value) and (not curve or curve[-1][1] != value):
                curve.append((iteration, value))


class FolderStage:
    """The job that runs here, and its result in the end."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._job: Entry | None = None
        self._taken_s = 0.0
        self._curves, self._positions = _Curves(), FramePositions(site.jobs)
        self._view: LiveView | None = None
        #: Whose it is.
        self._view_of: Entry | None = None
        self._result: Reconstruction | None = None

    def scene(self) -> Scene | None:
        """See Stage."""
        sight = look(self._site)
        if sight is None:
            return None
        if self._job is None or sight.job.key != self._job.key:
            self._begin(sight.job)
        if sight.job.state in ("solved", "published") and self._result is None and sight.job.result is not None:
            self._take_result(sight.job)
        if sight.snapshot and sight.snapshot.taken_s != self._taken_s:
            self._view, self._view_of = view_of_snapshot(sight.snapshot, self._positions.first(sight.snapshot.frames)), sight.job
            self._taken_s = sight.snapshot.taken_s
        iteration, _ = sight.iterations
        if iteration:
            self._curves.add(iteration, sight.errors, sight.frames)
        mark = (sight.job.key, sight.job.state, iteration, self._taken_s, sight.frames, self._result is None)
        said = (self._headline(sight.job), self._facts(sight), self._curves.errors, self._curves.frames, self._view)
        return Scene(mark, sight.job.scan_id, (self._view_of or sight.job).purpose, *said)

    def _begin(self, job: Entry) -> None:
        self._job, self._taken_s = job, 0.0
        self._curves, self._positions = _Curves(), FramePositions(self._site.jobs / job.key)
        self._result = None
        # What its scan has shown so far stays until it has an image of its own.
        if self._view_of is None or not of_one_scan(self._view_of, job):
            self._view = self._view_of = None
            self._take_preview(job)

    def _take_preview(self, job: Entry) -> None:
        """What the live job of the scan has come to while nobody looked."""
        live = preview_of(self._site, job)
        if live is None or live.result is None:
            return
        try:
            self._view, self._view_of = view_of_result(read_result(live.result)), live
        except PtypluginError:
            return  # it is being removed, or this account may not read results

    def _take_result(self, job: Entry) -> None:
        assert job.result is not None
        try:
            self._result = read_result(job.result)
        except PtypluginError:
            return  # the last image stays: this account may not read results
        self._view, self._view_of, self._curves = view_of_result(self._result), job, _curves_of(self._result)

    def _headline(self, job: Entry) -> str:
        verdict = self._result.verdict.word if self._result and self._result.verdict else ""
        state = f"{job.purpose}{_DOT}{verdict or job.state}" if job.state != "running" else str(job.purpose)
        if self._view_of and self._view_of.key != job.key:
            state += f"{_DOT}still the image of {self._view_of.purpose} job {self._view_of.key[:8]}"
        return _headline(job.scan_id, job.beamline, state)

    def _facts(self, sight: Sight) -> str:
        if sight.job.state in ("failed", "cancelled"):
            return _shortened(sight.job.sentence or sight.job.state)
        if self._result is not None:
            return _facts_of(sight.job.key, self._result)
        words = [f"job {sight.job.key}", f"{sight.frames} frames"]
        iteration, iterations = sight.iterations
        # A live one goes on as long as frames come.
        of = "" if sight.job.purpose == "live" else f" of {iterations}"
        words += [f"{sight.stage}, iteration {iteration}{of}"] if iteration else []
        error = sight.errors.get("error")
        words += [] if error is None else [f"error {error:.3g}"]
        # The first iteration has waited for the frames: nothing can be told by it.
        is_told = sight.progress is not None and sight.progress.iteration > 1 and sight.job.purpose != "live"
        words += [f"about {sight.progress.left_s:.0f} s left"] if sight.progress and is_told else []
        words += [f"image of {_clock(self._taken_s)}"] if self._taken_s else []
        return _BETWEEN.join(words)


class CatalogStage:
    """The job of which the catalog has the newest live image, and its result in the end."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._path = ""
        self._last: Scene | None = None
        self._curves = _Curves()

    def scene(self) -> Scene | None:
        """See Stage."""
        node = self._newest(client_of(self._site))
        if node is None:
            return None
        path = "/".join(node.path_parts)
        if path != self._path:
            self._path, self._curves, self._last = path, _Curves(), None
        said = node.metadata.get("live") or {}
        mark = (path, node.metadata["state"], said.get("updated"))
        if self._last is None or mark != self._last.mark:
            self._last = self._of(node, mark)
        return self._last

    def _newest(self, client: Any) -> Any:
        from ptyplugin.catalog import LIVE, search

        shown = [node for node in search(client, state=LIVE, limit=_BEGUN) if node.metadata.get("live")]
        if shown or not self._path:
            return next(iter(shown or search(client, limit=1)), None)
        last = client[self._path]
        if last.metadata["purpose"] != "live":
            return last
        # The final result may have taken its place.
        return next(iter(search(client, scan_uid=last.metadata["scan_uid"], limit=1)), last)

    def _of(self, node: Any, mark: tuple[Any, ...]) -> Scene:
        from ptyplugin.catalog import LIVE, PUBLISHED

        metadata = node.metadata
        word = metadata["state"] if metadata["state"] != PUBLISHED else metadata.get("verdict") or PUBLISHED
        of = (metadata.get("scan_id"), metadata.get("purpose"))
        headline = _headline(of[0], metadata.get("beamline"), f"{of[1]}" if word == LIVE else f"{of[1]}{_DOT}{word}")
        if metadata["state"] == PUBLISHED:
            result = node.reconstruction()
            curves = _curves_of(result)
            return Scene(mark, *of, headline, _facts_of(metadata["job"], result), curves.errors, curves.frames, view_of_result(result))
        image = node.live()
        if image is None:
            raise CatalogError("the job has no image in the catalog yet.")
        said = image.said
        self._curves.add(said["iteration"], said["errors"], said["frames"])
        facts = [
            f"job {metadata['job']}",
            f"{said['frames']} frames",
            f"{said['stage']}, iteration {said['iteration']}",
        ]
        facts += [] if said["error"] is None else [f"error {said['error']:.3g}"]
        facts += [_shortened(metadata["sentence"])] if metadata.get("sentence") else [f"image of {_clock(said['updated'])}"]
        return Scene(mark, *of, headline, _BETWEEN.join(facts), self._curves.errors, self._curves.frames, image.view())


def _curves_of(result: Reconstruction) -> _Curves:
    curves = _Curves()
    for one in result.progress:
        curves.add(one.iteration, {str(name): value for name, value in one.errors.items()}, len(result.positions_m))
    return curves


def _headline(scan_id: int | None, beamline: str | None, state: str) -> str:
    scan = "Reconstruction" if scan_id is None else f"Scan {scan_id}"
    return _DOT.join(word for word in (scan, beamline, state) if word)


def _facts_of(key: str, result: Reconstruction) -> str:
    words = [f"job {key}", f"{len(result.positions_m)} frames", f"pixel {said_length(result.geometry.object_pixel_m[0])}"]
    words += [f"error {result.quality['error']:.3g}"] if "error" in result.quality else []
    return _BETWEEN.join(words)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= _WIDEST else f"{sentence[: _WIDEST - 1]}…"
