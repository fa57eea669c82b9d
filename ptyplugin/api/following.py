"""live: a figure that follows the job that runs now."""

from __future__ import annotations

import io
import logging
import sys
import threading
from pathlib import Path
from typing import Any

from ptyplugin.api.scenes import Scene, Stage, stage_of
from ptyplugin.model import FileFormatError, PtypluginError, Site, load_site

_log = logging.getLogger(__name__)

#: Seconds between two looks, and at least between two redraws.
PERIOD_S = 0.5
#: What the names of matplotlib's backends with windows have in them.
_WINDOWS = ("qt", "tk", "gtk", "wx", "macosx")
#: Figures that are open: what is only seen would be collected as garbage.
_OPEN: set[LiveFigure] = set()


def live(*, site: Site | Path | None = None) -> LiveFigure:
    """Open a figure that follows the job that runs now: phase, amplitude, probe, errors, frames; in the end its result, then the next job.

    With a window (``%matplotlib qt`` in IPython) and in a notebook it redraws itself, at most twice a second, until it is closed; reading,
    and what is drawn in a notebook, is done in a thread, so that no plan waits for it, and a cell that runs one does not hold it up.
    Elsewhere (``agg``): ``figure.update()`` whenever you like. ``figure.save("now.png")`` anywhere.

    site: whose jobs; by default what PTYPLUGIN_SITE names. Where its folders are on another machine, its catalog is asked.
    """
    return LiveFigure(stage_of(site if isinstance(site, Site) else load_site(site)))


class LiveFigure:
    """What ``live`` gives. figure: matplotlib's."""

    def __init__(self, stage: Stage) -> None:
        # Matplotlib is only for those who plot.
        import matplotlib.pyplot as plt
        from matplotlib.backend_bases import TimerBase
        from matplotlib.figure import Figure

        from ptyplugin.io.live_picture import SIZE_IN, LivePicture

        self._stage, self._lock, self._drawing = stage, threading.Lock(), threading.RLock()
        self._next: Scene | None = None
        self._trouble = self._drawn_trouble = ""
        self._mark: tuple[Any, ...] | None = None
        self._closed = threading.Event()
        in_page = _is_notebook() and not any(name in plt.get_backend().lower() for name in _WINDOWS)
        self.figure = Figure(figsize=SIZE_IN) if in_page else plt.figure(figsize=SIZE_IN)
        self._picture = LivePicture(self.figure)
        self._timer = self.figure.canvas.new_timer(interval=int(1000 * PERIOD_S), callbacks=[(self._ring, (), {})])
        self._has_window = not in_page and type(self._timer) is not TimerBase
        #: Its place in a notebook.
        self._page: Any = None
        #: Whether it redraws itself.
        self.follows = in_page or self._has_window
        if self._has_window:
            self._follow()
            self.figure.canvas.mpl_connect("close_event", self._end)
            self._timer.start()
            plt.show(block=False)
        elif in_page:
            self._page = _place(self._png())
            self._follow()
        else:
            plt.close(self.figure)
            self.update()

    def __repr__(self) -> str:
        state = "closed" if self._closed.is_set() else "follows by itself" if self.follows else "update() draws what is new"
        return f"<LiveFigure: {state}>"

    def _repr_png_(self) -> bytes | None:
        """For what shows pictures, where it does not follow."""
        return None if self.follows else self._png()

    @property
    def scene(self) -> Scene | None:
        """What was seen last, with or without an image; None if there was no job yet."""
        return self._next

    def update(self) -> bool:
        """Look, and draw what is new; whether anything was. One that follows by itself need not be told."""
        if not self.follows:
            self._look()
        return self._show()

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

    def _follow(self) -> None:
        if self._page is not None:
            # One page follows: a cell that is run again would have two.
            for other in [other for other in _OPEN if other._page is not None]:
                other.close()
        _OPEN.add(self)
        threading.Thread(target=self._read, name="ptyplugin-live-figure", daemon=True).start()

    def _end(self, *_: object) -> None:
        self._closed.set()
        self._timer.stop()
        _OPEN.discard(self)

    def _read(self) -> None:
        while not self._closed.is_set():
            self._look()
            if self._page is not None:
                self._show_in_page()
            self._closed.wait(PERIOD_S)

    def _show_in_page(self) -> None:
        try:
            self._show()
        except Exception:
            # As in a look: perhaps the next one is shown.
            _log.warning("the picture in the notebook could not be replaced", exc_info=True)

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
        self._show()

    def _show(self) -> bool:
        with self._drawing:
            is_new = self._draw()
            if is_new and self._has_window:
                self.figure.canvas.draw_idle()
            elif is_new and self._page is not None:
                self._page.update(_image(self._png()))
        return is_new

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
        return True

    def _png(self) -> bytes:
        buffer = io.BytesIO()
        with self._drawing:
            self.figure.savefig(buffer, format="png", dpi=100, facecolor="white")
        return buffer.getvalue()


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _image(png: bytes) -> Any:
    from IPython.display import Image

    return Image(data=png, format="png")  # type: ignore[no-untyped-call]


def _place(png: bytes) -> Any:
    """Show a picture below the cell that runs; ``update`` of what this gives replaces it, also from threads and from later cells."""
    from IPython.display import display

    return display(_image(png), display_id=True)  # type: ignore[no-untyped-call]
