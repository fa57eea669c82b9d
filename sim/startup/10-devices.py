"""The devices of the simulated beamline, over EPICS."""

import os
from pathlib import Path

from bluesky.run_engine import call_in_bluesky_event_loop

from ptyplugin.sim import ioc

beamline = ioc.devices(os.environ["PTYPLUGIN_SIM_PREFIX"], Path(os.environ["PTYPLUGIN_SIM_FOLDER"]))
call_in_bluesky_event_loop(beamline.connect())
y, x, theta = beamline.y, beamline.x, beamline.theta
detector, mono, ion_chamber = beamline.detector, beamline.mono, beamline.ion_chamber
sd.baseline = [theta, mono, ion_chamber]
