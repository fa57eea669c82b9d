"""What the simulated instrument measures: stages that are not quite where they should be, a beam that flickers, a detector with gaps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptyplugin.sim.beamline import GEOMETRY
from ptyplugin.sim.camera import Camera
from ptyplugin.sim.ioc.imperfections import Imperfections
from ptyplugin.sim.ioc.motion import Path
from ptyplugin.sim.optics import annular_probe, coherent_modes
from ptyplugin.sim.sample import make_sample

Floats = NDArray[np.float64]

#: What motor records say in, in metres.
UNIT, UNIT_M = "um", 1e-6
#: Vibrations of a stage, hertz.
_VIBRATIONS = 12
_SLOWEST_HZ, _FASTEST_HZ = 15.0, 400.0
#: Counts of a pixel between the modules of an Eiger, and the most that a pixel counts.
GAP = np.iinfo(np.uint16).max
#: A stage that moved less than this during an exposure stood still, metres.
_STILL_M = 1e-12


@dataclass(frozen=True, slots=True)
class Exposure:
    """One frame and what else was measured with it.

    counts: (y, x) uint16; intensity: of the beam, 1 on average; position_m: (yx) true, mean over the exposure
    """

    counts: NDArray[np.uint16]
    intensity: float
    position_m: Floats


class Instrument:
    """Sample, beam, stages and detector together; the same seed gives the same sample and the same imperfections.

    range_m: length of the field of the sample that the stages see around 0, along y and x; empty space lies around it
    """

    def __init__(
        self, imperfections: Imperfections, *, range_m: float = 24e-6, modes: int = 1, photons: float = 1e6, seed: int = 0
    ) -> None:
        self.imperfections = imperfections
        self.camera = _camera(range_m, modes, photons, seed)
        self.shape = self.camera.geometry.shape
        rng = np.random.default_rng((seed, 2))
        self._frequency = rng.uniform(_SLOWEST_HZ, _FASTEST_HZ, (2, _VIBRATIONS))
        self._phase = rng.uniform(0, 2 * np.pi, (2, _VIBRATIONS))
        self._dead = rng.choice(self.shape[0] * self.shape[1], imperfections.dead_pixels, replace=False)
        self._noise = np.random.default_rng((seed, 3))

    def set_energy(self, energy_ev: float) -> None:
        """Another photon energy. The sample is drawn in object pixels, so it grows with the wavelength."""
        self.camera = dataclasses.replace(self.camera, geometry=dataclasses.replace(self.camera.geometry, energy_ev=energy_ev))

    def stages_m(self, paths: tuple[Path, Path], time_s: Floats) -> Floats:
        """Where the stages really are (time, yx), metres: what a perfect encoder sees."""
        flaws = self.imperfections
        columns = []
        for axis, path in enumerate(paths):
            at = path.at(time_s) * UNIT_M
            if flaws.settling_m:
                at = at - flaws.settling_m * np.exp(-path.since_start(time_s) / flaws.settling_s)
            if flaws.jitter_m:
                waves = np.sin(2 * np.pi * self._frequency[axis] * time_s[:, None] + self._phase[axis])
                at = at + flaws.jitter_m * np.sqrt(2 / _VIBRATIONS) * waves.sum(axis=1)
            columns.append(at)
        return np.stack(columns, axis=1)

    def encoders_m(self, paths: tuple[Path, Path], time_s: Floats) -> Floats:
        """What the encoders say (time, yx), metres."""
        true = self.stages_m(paths, time_s)
        return np.asarray(true + self._noise.normal(0.0, self.imperfections.encoder_noise_m, true.shape))

    def expose(self, paths: tuple[Path, Path], start_s: float, exposure_s: float) -> Exposure:
        """One frame that is exposed from ``start_s`` on."""
        steps = self.imperfections.substeps
        times = start_s + (np.arange(steps) + 0.5) / steps * exposure_s
        at = self.stages_m(paths, times)
        if np.ptp(at, axis=0).max() < _STILL_M:
            at, times = at[:1], times[:1]
        seen = at + self.imperfections.drift_m_per_s * times[:, None]
        intensity = self.flicker()
        expected = np.mean([self.camera.expected(position) for position in seen], axis=0) * intensity
        counts = np.minimum(self._noise.poisson(expected), GAP).astype(np.uint16)
        return Exposure(self._through_detector(counts), intensity, at.mean(axis=0))

    def flicker(self) -> float:
        """The beam's intensity for a moment, 1 on average."""
        return float(max(self._noise.normal(1.0, self.imperfections.beam_flicker), 0.0))

    def _through_detector(self, counts: NDArray[np.uint16]) -> NDArray[np.uint16]:
        counts.flat[self._dead] = 0
        half = self.imperfections.gap_px / 2
        if half:
            for axis, side in enumerate(self.shape):
                gap = slice(int(np.floor(side / 2 - half)), int(np.floor(side / 2 + half)))
                counts[(gap, slice(None)) if axis == 0 else (slice(None), gap)] = GAP
        return counts


def _camera(range_m: float, modes: int, photons: float, seed: int) -> Camera:
    side, pixel_m = GEOMETRY.shape, GEOMETRY.object_pixel_m
    field = [int(np.ceil(range_m / pixel)) for pixel in pixel_m]
    return Camera(
        sample=make_sample((field[0] + side[0], field[1] + side[1]), seed),
        probe=np.sqrt(photons) * coherent_modes(annular_probe(side[0]), modes),
        geometry=GEOMETRY,
        origin_px=(field[0] / 2, field[1] / 2),
        noise=np.random.default_rng((seed, 1)),
    )
