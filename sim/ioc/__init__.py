"""A beamline behind EPICS that is not there: motors, detector, energy and fly scans over Channel Access and PVAccess.

``ptyplugin sim ioc`` serves it, in a process of its own; ``running`` starts that process from Python and ends it; ``devices`` (ophyd-async)
and ``legacy_devices`` (ophyd) are its devices for a session whose environment has the variables that ``running`` gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptyplugin.sim.ioc.async_devices import devices
    from ptyplugin.sim.ioc.process import running

__all__ = ["devices", "running"]


def __getattr__(name: str) -> Any:
    if name == "devices":
        from ptyplugin.sim.ioc.async_devices import devices

        return devices
    if name == "legacy_devices":
        from ptyplugin.sim.ioc.legacy import legacy_devices

        return legacy_devices
    if name == "running":
        from ptyplugin.sim.ioc.process import running

        return running
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
