"""live: a figure that follows the job that runs now."""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path
from typing import Any

from ptyplugin.api.scenes import Scene, Stage, stage_of
from ptyplugin.model import FileFormatError, PtypluginError, Site, load_site

_log = logging.getLogger(__name__)

#: Seconds between two looks, and at least between two redraws.
PERIOD_S = 0.5
#: Figures that are open: what is only seen would be collected as garbage.
_OPEN: set[LiveFigure] = set()


def live(*, site: Site | Path | None = None) -> LiveFigure:
    """Open a figure that follows the job that runs now: phase, amplitude, probe, errors, frames; in the end its result, then the next job.

    With a window (``%matplotlib qt`` or ``widget`` in IPython and Jupyter) it redraws itself, at most twice a second, until it is closed;
    reading is done in a thread, so that no plan waits for it. Without one (``agg``, ``inline``): ``figure.update()`` whenever you like,
    and ``figure.save("now.png")``.

    site: whose jobs; by default what PTYPLUGIN_SITE names. Where its folders are on another machine, its catalog is asked.
    """
    return LiveFigure(stage_of(site if isinstance(site, Site) else load_site(site)))


class LiveFigure:
    """What ``live`` gives. figure: matplotlib's."""

    def __init__(self, stage: Stage) -> None:
        # Matplotlib is only for those who plot.
        import matplotlib.pyplot as plt
        from matplotlib.backend_bases import TimerBase

        from ptyplugin.io.live_picture import SIZE_IN, LivePicture

        self._stage, self._lock = stage, threading.Lock()
        self._next: Scene | None = None
        self._trouble = self._drawn_trouble = ""
        self._mark: tuple[Any, ...] | None = None
        self._closed = threading.Event()
        self.figure = plt.figure(figsize=SIZE_IN)
        self._picture = LivePicture(self.figure)
        self._timer = self.figure.canvas.new_timer(interval=int(1000 * PERIOD_S), callbacks=[(self._ring, (), {})])
        #: Whether it redraws itself.
        self.follows = type(self._timer) is not TimerBase
        if self.follows:
            self._follow(plt)
        else:
            plt.close(self.figure)
            self.update()

    def __repr__(self) -> str:
        state = "closed" if self._closed.is_set() else "follows by itself" if self.follows else "update() draws what is new"
        return f"<LiveFigure: {state}>"

    def _repr_png_(self) -> bytes | None:
        """For notebooks without a window."""
        return None if self.follows else self._png()

    @property
    def scene(self) -> Scene | None:
        """What was seen last, with or without an image; None if there was no job yet."""
        return self._next

    def update(self) -> bool:
        """Look, and draw what is new; whether anything was. One that follows by itself need not be told."""
        if not self.follows:
            self._look()
        return self._draw()

    def save(self, path: Path | str) -> None:
        """Write the picture as it is.

        Raises:
            FileFormatError: it cannot be written.
        """
        try:
            Path(path).write_bytes(self._png())
        except OSError as error:
            raise FileFormatError(f"the picture cannot be written to {path} ({error.strerror}): check the folder and the disk.") from error

    def close(self) -> None:
        """End it, and close its window."""
        import matplotlib.pyplot as plt

        self._end()
        plt.close(self.figure)

    def _follow(self, plt: Any) -> None:
        _OPEN.add(self)
        self.figure.canvas.mpl_connect("close_event", self._end)
        threading.Thread(target=self._read, name="ptyplugin-live-figure", daemon=True).start()
        self._timer.start()
        plt.show(block=False)

    def _end(self, *_: object) -> None:
        self._closed.set()
        self._timer.stop()
        _OPEN.discard(self)

    def _read(self) -> None:
        while not self._closed.is_set():
            self._look()
            self._closed.wait(PERIOD_S)

    def _look(self) -> None:
        try:
            scene, trouble = self._stage.scene(), ""
        except PtypluginError as error:
            scene, trouble = None, str(error)
        except Exception as error:
            # A picture must not end a session, or stop following: perhaps the next look is better.
            _log.debug("looking at the job that runs failed", exc_info=True)
            scene, trouble = None, f"{type(error).__name__}: {error}"
        with self._lock:
            self._next, self._trouble = scene or self._next, trouble

    def _ring(self) -> None:
        # Matplotlib forgets a callback that gives False.
        self._draw()

    def _draw(self) -> bool:
        from ptyplugin.io.live_picture import Told

        with self._lock:
            scene, trouble = self._next, self._trouble
        mark = scene.mark if scene else None
        if (mark, trouble) == (self._mark, self._drawn_trouble):
            return False
        self._mark, self._drawn_trouble = mark, trouble
        if scene is None:
            self._picture.show(Told(facts=trouble), None)
        else:
            self._picture.show(Told(scene.headline, trouble or scene.facts, dict(scene.errors), list(scene.frames)), scene.view)
        self.figure.canvas.draw_idle()
        return True

    def _png(self) -> bytes:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=100, facecolor="white")
        return buffer.getvalue()
