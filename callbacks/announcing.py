"""Where a scan says beforehand that it will go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ptyplugin.callbacks.documents import EXTENTS, MOTORS
from ptyplugin.callbacks.fields import numbers
from ptyplugin.callbacks.quantities import metres_per_step
from ptyplugin.callbacks.run import CollectedRun
from ptyplugin.callbacks.settling import Extent
from ptyplugin.model import Axis, Profile, PtypluginError

#: No stage goes farther, metres.
_FARTHEST_M = 1e3
#: What may stand between the name of a device and the rest of its data key.
_JOINTS = "_-"


def announced_extent(run: CollectedRun, profile: Profile) -> Extent | None:
    """Lowest and highest position (y, x) in metres, as the start document announces them; None if it does not, or not for both axes.

    Plans that move relative to where they stand announce it relative, too: whoever uses it looks whether the scan keeps to it.
    """
    try:
        motors, extents = run.start[MOTORS], run.start[EXTENTS]
        axes = profile.positions.y, profile.positions.x
        (low_y, high_y), (low_x, high_x) = (_along(run, profile, axis, motors, extents) for axis in axes)
    except (LookupError, TypeError, ValueError, PtypluginError):
        return None
    is_near = all(abs(end) < _FARTHEST_M for end in (low_y, low_x, high_y, high_x))
    return ((low_y, low_x), (high_y, high_x)) if is_near else None


def _along(run: CollectedRun, profile: Profile, axis: Axis, motors: Any, extents: Any) -> tuple[float, float]:
    """Lowest and highest position along this axis, metres; LookupError if no motor is its."""
    data_keys = run.data_keys[profile.positions.stream or profile.detector.stream]
    step_m = metres_per_step(axis, data_keys[axis.key])
    ends = [end * step_m for end in numbers(extents[_number_of(axis.key, motors)])]
    return min(ends), max(ends)


def _number_of(key: str, motors: Sequence[Any]) -> int:
    """Which of these devices has this data key."""
    for number, name in enumerate(motors):
        if isinstance(name, str) and (key == name or (key.startswith(name) and key[len(name)] in _JOINTS)):
            return number
    raise LookupError(key)
