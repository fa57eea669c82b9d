"""How a ptychography scan walks over the sample."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import numpy as np
from bluesky import plan_stubs, preprocessors
from bluesky.utils import FailedStatus
from numpy.typing import NDArray

from ptyplugin.model.errors import DeviceError, ScanError

#: How often a fly scan says which frames there are, seconds.
_FLUSH_S = 0.25
#: Device and PV in what ophyd-async says.
_DEVICE, _PV = re.compile(r"device: ([\w-]+)"), re.compile(r"(?:ca|pva)://([\w:.-]+)")
_SILENT = re.compile(r"while waiting ([\d.]+)s to update")
#: Characters of what a device says of itself.
_LONGEST = 200


def jittered_raster(points: int, step: float, jitter: float, seed: int) -> NDArray[np.float64]:
    """Positions (point, yx) of a snake of rows about 0, each point moved at random by up to ``jitter``, in the unit of ``step``.

    The jitter breaks the symmetry that puts a grid pattern into the object (Thibault et al. 2009, raster grid pathology).
    Any number of points fills the rectangle evenly: rows may differ by one point.

    Raises:
        ScanError: fewer points than 1.
    """
    if points < 1:
        raise ScanError(f"a scan of {points} points was asked for: give at least 1.")
    rows = np.array_split(np.arange(points), max(1, round(float(np.sqrt(points)))))
    half_width = step * (len(rows[0]) - 1) / 2
    grid = []
    for number, row in enumerate(rows):
        x = np.linspace(-half_width, half_width, len(row)) if len(row) > 1 else np.zeros(1)
        y = step * (number - (len(rows) - 1) / 2)
        grid.append(np.stack([np.full(len(row), y), x[:: 1 if number % 2 == 0 else -1]], axis=1))
    return np.asarray(np.concatenate(grid) + np.random.default_rng(seed).uniform(-jitter, jitter, (points, 2)))


def fermat_spiral(points: int, step: float) -> NDArray[np.float64]:
    """Positions (point, yx) of a Fermat spiral about 0 that has one point for each ``step`` squared, in the unit of ``step``.

    Even coverage without the symmetry of a grid (Huang et al., Optics Express 22, 12634 (2014)).

    Raises:
        ScanError: fewer points than 1.
    """
    if points < 1:
        raise ScanError(f"a scan of {points} points was asked for: give at least 1.")
    number = np.arange(points)
    # Point n lies within a disc of n + 1/2 times the area of one point, a golden angle further round.
    radius, angle = step * np.sqrt((number + 0.5) / np.pi), number * np.pi * (3 - np.sqrt(5))
    return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)


def ptycho_fly(
    detector: Any, capture: Any, fly: Any, trajectory: Any, *, samples: int = 1, patience_s: float = 10.0, md: dict[str, Any] | None = None
) -> Generator[Any, Any, Any]:
    """Plan: a fly scan along a ``ptyplugin.sim.ioc.trajectory.Trajectory``; the uid of the run.

    Frames and positions come as stream_resource and stream_datum in the stream ``primary``, without events.
    detector, capture, fly: as ``ptyplugin.sim.ioc.devices`` has them; samples: of the encoders, per frame
    patience_s: for the next frame, before the run fails; md: for the start document

    Raises:
        DeviceError: a device failed or does not answer. The run has failed then; its frames until there count.
    """
    from ophyd_async.core import DetectorTrigger, TriggerInfo

    frames = len(trajectory.positions)
    triggered = {
        "trigger": DetectorTrigger.EXTERNAL_EDGE,
        "livetime": trajectory.exposure_s,
        "number_of_events": frames,
        "exposure_timeout": patience_s,
    }
    metadata = {
        "plan_name": "ptycho_fly",
        "plan_type": "generator",
        "detectors": [detector.name, capture.name],
        "motors": list(capture.motors),
        **_extent(trajectory.positions),
        **(md or {}),
    }

    @preprocessors.stage_decorator([detector, capture, fly])
    @preprocessors.run_decorator(md=metadata)
    def flight() -> Generator[Any, Any, None]:
        # Inside the run too, so that its stop document has the sentence.
        yield from _in_a_sentence(measure())

    def measure() -> Generator[Any, Any, None]:
        yield from plan_stubs.abs_set(capture.io.samples_per_frame, samples, wait=True)
        yield from plan_stubs.prepare(detector, TriggerInfo(**triggered), group="prepare")
        yield from plan_stubs.prepare(capture, TriggerInfo(**triggered, collections_per_event=samples), group="prepare")
        yield from plan_stubs.prepare(fly, trajectory, group="prepare")
        yield from plan_stubs.wait("prepare")
        yield from plan_stubs.declare_stream(detector, capture, name="primary", collect=True)
        yield from plan_stubs.kickoff_all(detector, capture, wait=True)
        yield from plan_stubs.kickoff(fly, wait=True)
        # Detectors are completed as well: one that falls silent fails the run.
        yield from plan_stubs.collect_while_completing(
            [fly, detector, capture], [detector, capture], flush_period=_FLUSH_S, stream_name="primary"
        )

    return (yield from _in_a_sentence(flight()))


def _in_a_sentence(plan: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """The plan, whose devices say in one sentence what is wrong with them.

    Raises:
        DeviceError: one failed or does not answer.
    """
    try:
        return (yield from plan)
    except (FailedStatus, TimeoutError, ConnectionError) as error:
        # Of a device that is gone, unstaging fails as well: what was wrong first is said.
        first = error.__context__
        raise DeviceError(str(first) if isinstance(first, DeviceError) else _sentence(error)) from None


def _sentence(error: Exception) -> str:
    cause = error.__cause__ or error
    said = f"{error} {cause}"
    device, pv = _DEVICE.search(said), _PV.search(said)
    who = (device[1] if device else "a device") + (f" ({pv[1]})" if pv else "")
    if isinstance(cause, ConnectionError):
        what = "was disconnected"
    elif silent := _SILENT.search(said):
        what = f"had nothing new for {silent[1]} s"
    else:
        what = "did not answer in time" if isinstance(cause, TimeoutError) else f"failed: {' '.join(str(cause).split())[:_LONGEST]}"
    return (
        f"the fly scan ended early, {who} {what}. Does its IOC run, and is it on? Start it again, then repeat the scan; "
        "frames that were measured until then are kept and reconstructed."
    )


def ptycho_grid(
    detectors: list[Any], stage_y: Any, stage_x: Any, positions: NDArray[np.float64], plan_name: str = "ptycho_grid"
) -> Generator[Any, Any, Any]:
    """Plan: move to each of ``positions`` (point, yx), in the stages' unit, and trigger and read; the uid of the run.

    ``plan_name`` may say what path it is. The start document has ``extents``, (first, last) of y and x, so that a live view knows its
    canvas.
    """
    metadata = {
        "plan_name": plan_name,
        "plan_type": "generator",
        "detectors": [detector.name for detector in detectors],
        "motors": [stage_y.name, stage_x.name],
        **_extent(positions),
    }

    @preprocessors.stage_decorator([*detectors, stage_y, stage_x])
    @preprocessors.run_decorator(md=metadata)
    def walk() -> Generator[Any, Any, None]:
        for y, x in positions.tolist():
            yield from plan_stubs.checkpoint()
            yield from plan_stubs.mv(stage_y, y, stage_x, x)
            yield from plan_stubs.trigger_and_read([*detectors, stage_y, stage_x])

    return (yield from walk())


def _extent(positions: NDArray[np.float64]) -> dict[str, Any]:
    """What a start document says about positions (point, yx): how many, and first and last of y and x."""
    low, high = positions.min(axis=0), positions.max(axis=0)
    return {"num_points": len(positions), "extents": [[float(low[0]), float(high[0])], [float(low[1]), float(high[1])]]}
