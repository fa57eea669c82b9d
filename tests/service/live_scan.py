"""A scan in an HDF5 file, its live and its final job, and growth of the live one bit by bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptyplugin.jobs import grow, submit
from ptyplugin.model import BesideArray, FrameBlock, GeometryNumbers, Growth, Hdf5Source, Job, RunSource, Site
from ptyplugin.model.job import array_sha256
from ptyplugin.sim.optics import annular_probe, far_field
from ptyplugin.sim.sample import make_sample

SIDE, STEP = 32, 3
GEOMETRY = GeometryNumbers(energy_ev=8000, distance_m=1, pixel_m=75e-6, shape=(SIDE, SIDE))


PROBE = np.asarray(annular_probe(SIDE, pupil_px=6.0, spot_px=6.0) * np.sqrt(2e5), np.complex64)


def write_scan(path: Path, across: int) -> NDArray[np.float64]:
    """Write the frames of a raster of ``across`` x ``across`` points; gives its positions (frame, yx) m."""
    rng = np.random.default_rng(5)
    at = np.array([(y, x) for y in range(across) for x in range(across)]) * STEP + rng.integers(0, 2, (across**2, 2))
    size = SIDE + across * STEP + 2
    sample = make_sample((size, size), 3)
    counts = np.stack([rng.poisson(far_field(PROBE[None] * sample[None, y : y + SIDE, x : x + SIDE])) for y, x in at])
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = counts.astype(np.uint16)
    return at * np.asarray(GEOMETRY.build().object_pixel_m)


@dataclass
class LiveScan:
    """A run of which the first frames are known when its live job begins."""

    site: Site
    path: Path
    positions_m: NDArray[np.float64]
    run: str = "run-1"
    first: int = 64
    recipe: str = "DM(10)"

    def job(self, purpose: str, frames: int | None = None) -> Job:
        count = frames or (self.first if purpose == "live" else len(self.positions_m))
        return Job(
            beamline="sim",
            source=RunSource(run_uid=self.run, key="detector"),
            purpose=purpose,
            geometry=GEOMETRY,
            recipe=self.recipe,
            start_probe=BesideArray(name="probe.npy", sha256=array_sha256(PROBE)),
            frames=[self._block(0, count)],
            frame_ids=[(0, count)],
            positions_m=self._positions(0, count),
        )

    def growth(self, start: int, stop: int, ended: bool = False) -> Growth:
        if start == stop:
            return Growth(job=self.live.key, first=start, ended=ended)
        return Growth(
            job=self.live.key,
            first=start,
            frames=[self._block(start, stop)],
            frame_ids=[(start, stop)],
            positions_m=self._positions(start, stop),
            ended=ended,
        )

    @property
    def live(self) -> Job:
        return self.job("live")

    @property
    def final(self) -> Job:
        return self.job("final")

    def submit(self, purpose: str) -> str:
        return submit(self.site, self.job(purpose), {"probe.npy": PROBE})

    def grow(self, start: int, stop: int, ended: bool = False) -> None:
        grow(self.site, self.growth(start, stop, ended))

    def _block(self, start: int, stop: int) -> FrameBlock:
        return FrameBlock(source=Hdf5Source(uri=self.path.as_uri(), dataset="/entry/data/data"), ranges=[(start, stop)])

    def _positions(self, start: int, stop: int) -> list[list[tuple[float, float]]]:
        return [[(float(y), float(x))] for y, x in self.positions_m[start:stop]]
