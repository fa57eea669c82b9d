"""The picture of a reconstruction: object phase and amplitude, probe, errors; it explains itself."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from ptyplugin.io.display import View, length_of_bar, limits, probe_view, said_length, scanned_view, take_ramp_off, without_ramp
from ptyplugin.model import ErrorName, FileFormatError, Recipe, Reconstruction, RingCorrelation

INK = "#1b2430"
PALE = "#6b7480"
#: Behind an object where it was not lit: no colour of an image.
UNSEEN = "#dbe4f0"
#: Letters of a recipe that fit into a line.
_WIDEST_RECIPE = 170
CURVES: dict[ErrorName, tuple[str, str]] = {
    "constraint_residual": ("#9db4c8", "constraint residual"),
    "running_error": ("#e08e45", "running error"),
    "held_out_error": ("#b03a5b", "error on frames held out"),
    "error": ("#1f4e79", "error"),
}


def save_png(reconstruction: Reconstruction, path: Path, truth: NDArray[Any] | None = None) -> None:
    """Write the picture of a reconstruction, beside the ``truth`` (y, x) on the same grid where it is known.

    Raises:
        FileFormatError: it cannot be written.
    """
    figure = reconstruction_figure(reconstruction, truth)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=150, facecolor="white")
    except OSError as error:
        raise FileFormatError(f"the picture cannot be written to {path} ({error.strerror}): check the folder and the disk.") from error


def reconstruction_figure(reconstruction: Reconstruction, truth: NDArray[Any] | None = None) -> Figure:
    """Phase and amplitude (first mode) of the scanned area, the strongest probe mode, the errors over the iterations; truth if given."""
    layout = ConstrainedLayoutEngine(rect=(0.008, 0.03, 0.984, 0.875), w_pad=0.10, h_pad=0.06, wspace=0.02, hspace=0.04)
    figure = Figure(figsize=(12.0, 9.4), layout=layout)
    places = "PPPAAA;QQEEEE" if truth is None else "PPPTTT;AAQQEE"
    if reconstruction.frc is not None and truth is None:
        places = "PPPAAA;QQEEFF"
    axes = figure.subplot_mosaic(places, height_ratios=[1.75, 1.0])
    view = scanned_view(reconstruction)
    phase = np.angle(view.wave)
    modes = len(reconstruction.object)
    first = "" if modes == 1 else f", mode 1 of {modes}"
    maps = {
        "P": (f"Object phase{first}", phase, "viridis", "rad"),
        "A": (f"Object amplitude{first}", np.abs(view.wave), "gray", "amplitude"),
    }
    if truth is not None:
        maps["T"] = ("True phase", np.angle(_same_view(truth, view)), "viridis", "rad")
    shown = limits(phase[view.seen >= 1])
    for name, (title, values, colours, unit) in maps.items():
        axes[name].set_title(title, loc="left", color=INK)
        _show_map(figure, axes[name], values, view.seen, colours, unit, shown if unit == "rad" else limits(values[view.seen >= 1]))
        _scale(axes[name], view.wave.shape, reconstruction.geometry.object_pixel_m)
    _show_probe(axes["Q"], reconstruction, view.ramp)
    _show_errors(axes["E"], reconstruction)
    if "F" in axes and reconstruction.frc is not None:
        show_ring_correlation(axes["F"], reconstruction.frc)
    figure.text(0.016, 0.985, _headline(reconstruction), va="top", fontsize=15, fontweight="bold", color=INK)
    figure.text(0.016, 0.950, _facts(reconstruction), va="top", fontsize=10, color=PALE)
    recipe = textwrap.shorten(str(reconstruction.provenance.get("recipe", "")), _WIDEST_RECIPE, placeholder=" ...")
    figure.text(0.016, 0.928, recipe, va="top", fontsize=9, color=PALE)
    figure.text(0.016, 0.012, _footnote(view.ramp), fontsize=8.5, color=PALE)
    return figure


def _same_view(truth: NDArray[Any], view: View) -> NDArray[np.complex64]:
    """The part of the truth that ``view`` shows, without its own ramp and mean phase."""
    (row, column), (height, width) = view.corner, view.wave.shape
    return without_ramp(truth[row : row + height, column : column + width].astype(np.complex64), view.seen >= 1)[0]


def _show_map(
    figure: Figure,
    axes: Axes,
    values: NDArray[Any],
    seen: NDArray[np.float32],
    colours: str,
    unit: str,
    shown: tuple[float, float],
) -> None:
    low, high = shown
    if unit == "rad" and high - low > 1.9 * np.pi:
        colours, low, high = "twilight", -np.pi, np.pi
    image = axes.imshow(values, cmap=colours, vmin=low, vmax=high, alpha=seen, interpolation="nearest")
    axes.set_facecolor(UNSEEN)
    # A bar made from the norm alone does not fade with the image.
    bar = figure.colorbar(ScalarMappable(image.norm, image.cmap), cax=axes.inset_axes((1.025, 0, 0.035, 1)))
    bar.set_label(unit, color=INK)
    bar.ax.spines[:].set_visible(False)
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_anchor("W")
    axes.spines[:].set_visible(False)


def _scale(axes: Axes, shape: tuple[int, ...], pixel_m: tuple[float, float], dark: bool = False) -> None:
    """A bar of a round length in the lower left corner, and the true shape of pixels that are not square."""
    (height, width), (pixel_y, pixel_x) = shape, pixel_m
    length_m = length_of_bar(width * pixel_x)
    left, bottom = 0.04 * width, 0.955 * height
    ink, paper = ("white", "black") if dark else (INK, "white")
    for width_pt, colour in ((6.0, paper), (3.5, ink)):
        axes.plot([left, left + length_m / pixel_x], [bottom, bottom], color=colour, linewidth=width_pt, solid_capstyle="butt")
    box = {"boxstyle": "round,pad=0.2", "facecolor": paper, "edgecolor": "none", "alpha": 0.7}
    axes.text(left, bottom - 0.03 * height, said_length(length_m), ha="left", va="bottom", fontsize=10, color=ink, bbox=box)
    axes.set_aspect(pixel_y / pixel_x)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _show_probe(axes: Axes, reconstruction: Reconstruction, ramp: tuple[float, float]) -> None:
    power = np.sum(np.abs(reconstruction.probe) ** 2, axis=(1, 2))
    mode = probe_view(take_ramp_off(reconstruction.probe[0], (-ramp[0], -ramp[1])))
    axes.imshow(complex_colours(mode), interpolation="nearest")
    _bare(axes)
    _scale(axes, mode.shape, reconstruction.geometry.object_pixel_m, dark=True)
    share = "" if len(power) == 1 else f", mode 1 of {len(power)} ({power[0] / power.sum():.0%} of the power)"
    axes.set_title(f"Probe{share}", loc="left", color=INK)
    wheel = axes.inset_axes((0.83, 0.02, 0.15, 0.15))
    y, x = np.mgrid[1:-1:65j, -1:1:65j]
    disc = np.where(np.hypot(x, y) <= 1, x + 1j * y, 0)
    wheel.imshow(complex_colours(disc.astype(np.complex64)))
    wheel.set_xlabel("phase", fontsize=7, labelpad=1, color="white")
    wheel.xaxis.set_label_position("top")
    _bare(wheel)


def complex_colours(wave: NDArray[np.complex64]) -> NDArray[np.float64]:
    """(y, x, rgb): hue is the phase, brightness the amplitude."""
    amplitude = np.abs(wave)
    bright = np.clip(amplitude / max(float(np.percentile(amplitude, 99.9)), np.finfo(np.float32).tiny), 0, 1)
    hue = (np.angle(wave) / (2 * np.pi)) % 1.0
    return np.asarray(hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.85), bright], axis=-1)))


def show_ring_correlation(axes: Axes, frc: RingCorrelation) -> None:
    """Draw a ring correlation with its thresholds, and where it falls below the half-bit one."""
    scale = 1e-6
    axes.set_title(f"Resolution {said_length(frc.resolution_m)} (half period)", loc="left", color=INK)
    frequency = frc.frequency_per_m[1:] * scale  # the first ring is what is left of the mean
    axes.plot(frequency, frc.correlation[1:], color="#1f4e79", linewidth=1.8, label="two halves")
    axes.plot(frequency, frc.half_bit[1:], color="#e08e45", linewidth=1.2, label="half bit")
    axes.plot(frequency, frc.one_bit[1:], color="#9db4c8", linewidth=1.2, label="one bit")
    axes.axvline(scale / (2 * frc.resolution_m), color=PALE, linewidth=0.8, linestyle=":")
    axes.set_xlabel("cycles per µm")
    axes.set_xlim(0, float(frc.frequency_per_m[-1]) * scale)
    axes.set_ylim(-0.2, 1.03)
    axes.grid(True, which="major", color="#e6e9ed", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best", fontsize=9)


def _show_errors(axes: Axes, reconstruction: Reconstruction) -> None:
    progress = reconstruction.progress
    axes.set_title("Error over iterations", loc="left", color=INK)
    axes.margins(y=0.14)  # room for the names of the stages
    for name, (colour, label) in CURVES.items():
        points = [(one.iteration, one.errors[name]) for one in progress if name in one.errors]
        if points:
            iterations, errors = zip(*points, strict=True)
            marker = "o" if name in ("error", "held_out_error") else None
            axes.plot(iterations, errors, color=colour, linewidth=1.8, marker=marker, markersize=3.5, label=label)
            axes.set_yscale("log")
    for start, stage in _stages(reconstruction):
        axes.axvline(start, color=PALE, linewidth=0.8, linestyle=":")
        axes.annotate(stage, (start, 1.0), (4, -4), xycoords=("data", "axes fraction"), textcoords="offset points", va="top", color=PALE)
    axes.set_xlabel("iteration")
    axes.grid(True, which="major", color="#e6e9ed", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        # Below the names of the stages, which "best" does not see.
        axes.legend(frameon=False, loc="best", bbox_to_anchor=(0, 0, 1, 0.92), fontsize=9)


def _stages(reconstruction: Reconstruction) -> list[tuple[float, str]]:
    """Where each stage of the recipe begins, and its name."""
    starts, done = list[tuple[float, str]](), 0
    for stage in Recipe.parse(str(reconstruction.provenance["recipe"])).stages if "recipe" in reconstruction.provenance else ():
        starts.append((done + 0.5, stage.algorithm))
        done += stage.iterations
    return starts


def _headline(reconstruction: Reconstruction) -> str:
    known = reconstruction.provenance
    scan = f"Scan {known['scan_id']}" if known.get("scan_id") is not None else str(known.get("name") or "Reconstruction")
    words = [scan, *([str(known["beamline"])] if known.get("beamline") and known.get("scan_id") is not None else [])]
    return "  ·  ".join([*words, *([reconstruction.verdict.word] if reconstruction.verdict else [])])


def _facts(reconstruction: Reconstruction) -> str:
    geometry = reconstruction.geometry
    words = [
        f"{len(reconstruction.positions_m)} frames",
        f"{geometry.energy_ev / 1e3:.4g} keV",
        f"pixel {said_length(geometry.object_pixel_m[0])}",
    ]
    if geometry.near_field:
        words.append("near field")
    said = {"error": "error", "held_out_error": "held out", "noise_floor": "noise"}
    words += [f"{said[name]} {value:.3g}" for name, value in reconstruction.quality.items() if name in said]
    return "   ·   ".join(words)


def _footnote(ramp: tuple[float, float]) -> str:
    return (
        f"For display only, a phase ramp of ({2 * np.pi * ramp[0]:+.3g}, {2 * np.pi * ramp[1]:+.3g}) rad per pixel (y, x) "
        "and the mean phase were removed. Colours run from the 0.5 to the 99.5 percentile; weakly lit parts fade out."
    )
