"""RunEngine and catalog. Each run is written into the catalog, frames by reference to the detector's files."""

import logging
import os

from bluesky import RunEngine
from bluesky.callbacks.buffer import BufferingWrapper
from bluesky.preprocessors import SupplementalData
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri

catalog = from_uri(os.environ["TILED_URI"])["sim/raw"]  # its key is in TILED_API_KEY

RE = RunEngine({"beamline": "sim", "detector_distance_m": 3.0, "scan_id": len(catalog)})
sd = SupplementalData()
RE.preprocessors.append(sd)
raw_writer = BufferingWrapper(TiledWriter(catalog, batch_size=1))
RE.subscribe(raw_writer)
# Why a plan ended is shown at the prompt, and not a second time with all of its traceback.
logging.getLogger("bluesky").addFilter(lambda record: record.msg != "Run aborted")
