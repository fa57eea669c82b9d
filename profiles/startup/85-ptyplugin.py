"""Ptychographic images of all scans, while they run and afterwards: copy this file into the startup folder of your IPython profile.

It comes after the files that make RE (hence its number). The environment says the rest:
  PTYPLUGIN_PROFILE   what this beamline calls its things: a name, or the path of a TOML file; several with commas between them
  PTYPLUGIN_SITE      the site file, the same one as that of `ptyplugin serve`
"""

import os

import ptyplugin  # noqa: F401  for the session: ptyplugin.live(), ptyplugin.results()
from ptyplugin.callbacks import AutoReconstruct, ProgressBars

for profile in os.environ["PTYPLUGIN_PROFILE"].split(","):
    RE.subscribe(AutoReconstruct(profile))
RE.subscribe(ProgressBars())
# ptyplugin.live() follows the image, ptyplugin.results(17)[0].plot() shows the finished one of scan 17.
