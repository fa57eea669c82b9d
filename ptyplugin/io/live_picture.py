"""The picture of a job that goes on, drawn anew in place: phase, amplitude and probe, and how error and frames came along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from ptyplugin.io.display import limits, probe_view, said_length
from ptyplugin.io.live_view import LiveView
from ptyplugin.io.picture import CURVES, INK, PALE, UNSEEN, complex_colours
from ptyplugin.model import ErrorName

#: Size of a figure, inches, and where its parts lie: left, bottom, width, height.
SIZE_IN = (11.0, 8.2)
_PLACES = {
    "phase": (0.065, 0.30, 0.47, 0.565),
    "amplitude": (0.68, 0.585, 0.24, 0.28),
    "probe": (0.68, 0.30, 0.24, 0.20),
    "errors": (0.075, 0.075, 0.85, 0.135),
}
_UM = 1e6
#: Height over width, or width over height, of a map at least.
_FLATTEST = 0.4
_NOTHING = "No job runs yet: the next one is shown here."


@dataclass(frozen=True, slots=True)
class Told:
    """What is written beside the image.

    headline: what it is; facts: numbers about it, in one line
    errors: (iteration, value) by name; frames: (iteration, how many)
    """

    headline: str = ""
    facts: str = ""
    errors: dict[ErrorName, Sequence[tuple[int, float]]] = field(default_factory=dict)
    frames: Sequence[tuple[int, int]] = ()


class LivePicture:
    """Draws into a figure of its own; ``show`` changes what is drawn."""

    def __init__(self, figure: Figure) -> None:
        self._figure = figure
        self._axes = {name: figure.add_axes(place) for name, place in _PLACES.items()}
        self._phase = _Map(figure, self._axes["phase"], "Object phase", "viridis", "rad")
        self._amplitude = _Map(figure, self._axes["amplitude"], "Object amplitude", "gray", "amplitude")
        self._curves = _Curves(self._axes["errors"])
        self._headline = figure.text(0.012, 0.975, "", va="top", fontsize=15, fontweight="bold", color=INK)
        self._facts = figure.text(0.012, 0.928, "", va="top", fontsize=10, color=PALE)
        self._nothing = figure.text(0.5, 0.5, _NOTHING, ha="center", fontsize=13, color=PALE)
        self._hide()

    def show(self, told: Told, view: LiveView | None) -> None:
        """Draw this; without a view there is no image yet."""
        self._headline.set_text(told.headline)
        self._facts.set_text(told.facts)
        self._nothing.set_visible(view is None)
        self._nothing.set_text("No image of this job yet." if told.headline else _NOTHING)
        if view is None:
            self._hide()
            return
        self._axes["probe"].set_visible(view.probe is not None)
        for name in ("phase", "amplitude", "errors"):
            self._axes[name].set_visible(True)
        well = view.seen >= 1
        self._phase.show(view, np.angle(view.wave), well)
        self._amplitude.show(view, np.abs(view.wave), well)
        if view.probe is not None:
            _show_probe(self._axes["probe"], view.probe, view.pixel_m)
        self._curves.show(told)

    def _hide(self) -> None:
        for axes in self._axes.values():
            axes.set_visible(False)
        self._curves.hide()


def live_figure(told: Told, view: LiveView | None) -> Figure:
    """A figure that stays as it is."""
    figure = Figure(figsize=SIZE_IN)
    LivePicture(figure).show(told, view)
    return figure


class _Map:
    """An image over the scan's positions, with a bar of its colours."""

    def __init__(self, figure: Figure, axes: Axes, title: str, colours: str, unit: str) -> None:
        self._axes, self._colours, self._unit = axes, colours, unit
        self._image: AxesImage = axes.imshow(np.zeros((2, 2)), cmap=colours, interpolation="nearest", alpha=np.ones((2, 2)))
        self._mappable = ScalarMappable(self._image.norm, self._image.cmap)
        # A bar made from the norm alone does not fade with the image.
        self._bar: Colorbar = figure.colorbar(self._mappable, cax=axes.inset_axes((1.03, 0, 0.035, 1)))
        self._bar.set_label(unit, color=INK)
        self._bar.locator = MaxNLocator(5)
        self._bar.ax.spines[:].set_visible(False)
        self._bar.ax.tick_params(labelsize=8)
        axes.set_facecolor(UNSEEN)
        axes.set_title(title, loc="left", color=INK, fontsize=11)
        axes.set_xlabel("x (µm)", color=PALE, labelpad=1)
        axes.set_ylabel("y (µm)", color=PALE, labelpad=1)
        axes.tick_params(colors=PALE, labelsize=8)
        axes.spines[:].set_color("#c9ced6")
        axes.set_anchor("NW")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))

    def show(self, view: LiveView, values: NDArray[Any], well: NDArray[np.bool_]) -> None:
        low, high = limits(values[well] if well.any() else values)
        turns = self._unit == "rad" and high - low > 1.9 * np.pi
        low, high = (-np.pi, np.pi) if turns else (low, high)
        for shown in (self._image, self._mappable):
            shown.set_cmap("twilight" if turns else self._colours)
        self._image.set_data(values)
        self._image.set_alpha(view.seen)
        self._image.set_clim(low, high)
        (top, left), (height, width) = view.middle_m, values.shape
        bottom, right = top + height * view.pixel_m[0], left + width * view.pixel_m[1]
        self._image.set_extent((left * _UM, right * _UM, bottom * _UM, top * _UM))
        # The first lines of a scan are not drawn as a line: there would be no room for what is written beside them.
        more_y = max(0.0, _FLATTEST * (right - left) - (bottom - top)) / 2
        more_x = max(0.0, _FLATTEST * (bottom - top) - (right - left)) / 2
        self._axes.set_xlim((left - more_x) * _UM, (right + more_x) * _UM)
        self._axes.set_ylim((bottom + more_y) * _UM, (top - more_y) * _UM)
        self._axes.set_aspect("equal")


class _Curves:
    """The errors over the iterations, and how many frames there were."""

    def __init__(self, axes: Axes) -> None:
        self._axes, self._frames_axes = axes, axes.twinx()
        self._lines = {
            name: axes.plot([], [], color=colour, linewidth=1.8, label=label, marker="o" if name == "error" else None, markersize=3)[0]
            for name, (colour, label) in CURVES.items()
        }
        (self._frames,) = self._frames_axes.plot([], [], color=PALE, linewidth=1.2, linestyle="--", drawstyle="steps-post")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("iteration", color=PALE, labelpad=1)
        axes.set_ylabel("error", color=INK)
        axes.yaxis.set_label_coords(-0.0647, 0.5)  # as far out as there is room, however long the numbers are
        self._frames_axes.set_ylabel("frames (dashed)", color=PALE)
        for one in (axes, self._frames_axes):
            one.tick_params(colors=PALE, labelsize=8)
            one.spines[["top"]].set_visible(False)
        axes.grid(True, which="major", color="#e6e9ed", linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        self._nothing = axes.text(0.5, 0.5, "no error is known yet", transform=axes.transAxes, ha="center", va="center", color=PALE)
        self._frames_axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))

    def show(self, told: Told) -> None:
        drawn = []
        for name, line in self._lines.items():
            points = [point for point in told.errors.get(name, ()) if point[1] > 0]
            line.set_data([point[0] for point in points], [point[1] for point in points])
            # A line of one point is none.
            line.set_marker("o" if name == "error" or len(points) == 1 else "")
            drawn += [line] if points else []
        self._frames.set_data([point[0] for point in told.frames], [point[1] for point in told.frames])
        for axes in (self._axes, self._frames_axes):
            axes.relim()
            axes.autoscale_view()
        if len(told.frames) == 1:
            ((iteration, count),) = told.frames
            self._frames.set_data([iteration - 1, iteration + 1], [count, count])
            self._axes.set_xlim(iteration - 1, iteration + 1, auto=None)
        self._frames_axes.set_ylim(0, 1.1 * max((count for _, count in told.frames), default=1))
        for axes in (self._axes, self._frames_axes):
            axes.set_visible(bool(drawn or told.frames))
        self._nothing.set_visible(not drawn)
        self._axes.legend(handles=drawn, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.97), ncols=max(len(drawn), 1), fontsize=8)

    def hide(self) -> None:
        self._frames_axes.set_visible(False)


def _show_probe(axes: Axes, probe: NDArray[np.complex64], pixel_m: tuple[float, float]) -> None:
    mode = probe_view(probe)
    axes.clear()
    axes.imshow(complex_colours(mode), interpolation="nearest", aspect=pixel_m[0] / pixel_m[1])
    axes.set_title(f"Probe, {said_length(mode.shape[1] * pixel_m[1])} wide", loc="left", color=INK, fontsize=11)
    axes.set_xlabel("hue: phase, brightness: amplitude", color=PALE, fontsize=8, labelpad=2, loc="left")
    axes.xaxis.set_ticks([])
    axes.yaxis.set_ticks([])
    axes.set_anchor("W")
    axes.spines[:].set_visible(False)
