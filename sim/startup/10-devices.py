"""The devices of the simulated beamline, over EPICS, of ophyd-async or of ophyd."""

import os
from pathlib import Path

from bluesky.run_engine import call_in_bluesky_event_loop

from ptyplugin.sim import ioc

where = os.environ["PTYPLUGIN_SIM_PREFIX"], Path(os.environ["PTYPLUGIN_SIM_FOLDER"])
if os.environ["PTYPLUGIN_SIM_DEVICES"] == "ophyd":
    beamline = ioc.legacy_devices(*where)
    beamline.mono.energy.name = "mono-energy"  # ophyd-async's name for it, which the profile knows
    exposure_time = beamline.detector.cam.acquire_time
else:
    beamline = ioc.devices(*where)
    call_in_bluesky_event_loop(beamline.connect())
    exposure_time = beamline.detector.driver.acquire_time
y, x, theta = beamline.y, beamline.x, beamline.theta
detector, mono, ion_chamber = beamline.detector, beamline.mono, beamline.ion_chamber
sd.baseline = [theta, mono, ion_chamber]
