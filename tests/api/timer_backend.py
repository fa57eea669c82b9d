"""A backend of matplotlib with a window that is not there: its timers ring when a test says so."""

from __future__ import annotations

from typing import Any, ClassVar

from matplotlib.backend_bases import CloseEvent, FigureManagerBase, TimerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

#: How often a canvas was asked to be drawn anew.
drawn: list[Any] = []


class Timer(TimerBase):
    running: ClassVar[list[Timer]] = []

    def _timer_start(self) -> None:
        Timer.running.append(self)

    def _timer_stop(self) -> None:
        if self in Timer.running:
            Timer.running.remove(self)


class FigureManager(FigureManagerBase):
    def destroy(self) -> None:
        CloseEvent("close_event", self.canvas)._process()


class FigureCanvas(FigureCanvasAgg):
    _timer_cls = Timer
    manager_class = FigureManager

    def draw_idle(self, *args: Any, **kwargs: Any) -> None:
        drawn.append(self)


def ring() -> None:
    """Time passes."""
    for timer in list(Timer.running):
        timer._on_timer()
