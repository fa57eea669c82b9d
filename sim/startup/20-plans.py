"""Ready plans: RE(ptycho_grid()), RE(ptycho_spiral(points=100)), RE(ptycho_fly(rows=20, columns=20))."""

from bluesky import plan_stubs as bps

from ptyplugin.model import DeviceError
from ptyplugin.sim import plans
from ptyplugin.sim.ioc.trajectory import Trajectory


def ptycho_grid(points=64, step_um=1.1, exposure_s=0.01):
    """Step scan over a raster whose points are moved a little at random, so that no grid comes into the image."""
    yield from bps.mv(exposure_time, exposure_s)
    path = plans.jittered_raster(points, step_um, 0.1 * step_um, seed=0)
    return (yield from plans.ptycho_grid([detector], y, x, path))


def ptycho_spiral(points=64, step_um=1.1, exposure_s=0.01):
    """Step scan over a Fermat spiral with one point for each step squared."""
    yield from bps.mv(exposure_time, exposure_s)
    path = plans.fermat_spiral(points, step_um)
    return (yield from plans.ptycho_grid([detector], y, x, path, plan_name="ptycho_spiral"))


def ptycho_fly(rows=16, columns=16, step_um=1.1, period_s=0.02):
    """Fly scan (ophyd-async): lines along x at constant speed, frames and encoders triggered together; no events."""
    if not hasattr(beamline, "fly"):
        raise DeviceError("fly scans are for devices of ophyd-async: open the session without --ophyd.")
    flight = Trajectory.grid(rows, columns, step_um, period_s=period_s, exposure_s=period_s / 2)
    return plans.ptycho_fly(detector, beamline.capture, beamline.fly, flight, samples=3)
