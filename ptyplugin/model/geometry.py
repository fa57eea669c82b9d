"""Geometry: what fixes the size of an object pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ptyplugin.model.errors import GeometryError

#: Planck constant times speed of light, in eV m (exact in the SI of 2019).
HC_EV_M = 1.239841984332003e-06

#: Plausible range of each number: (low, high, unit, what is usually wrong).
_RANGES = {
    "energy_ev": (30.0, 1e6, "eV", "give eV, not keV or J"),
    "distance_m": (1e-4, 100.0, "m", "give metres, not millimetres"),
    "pixel_m": (1e-7, 2e-3, "m", "give metres, e.g. 75e-6"),
    "focus_distance_m": (1e-6, 100.0, "m", "give metres, not millimetres"),
}
_J_EV = 1.602176634e-19
#: By unit, other units that a number may have been given in, the likeliest first: how much of it one of them is.
_MISTAKEN = {
    "eV": {"keV": 1e3, "J": 1 / _J_EV, "eV and taken for J": _J_EV, "keV and taken for J": 1e3 * _J_EV},
    "m": {"millimetres": 1e-3, "micrometres": 1e-6},
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the detector stands and what shines on it.

    ``shape`` is the shape (y, x) of a frame *after* preparation (crop). Far field, unless ``focus_distance_m`` (focus to
    sample) is given: then near field with a magnification.

    Raises:
        GeometryError: a number outside its plausible range, with its unit.
    """

    energy_ev: float
    distance_m: float
    pixel_m: float
    shape: tuple[int, int]
    focus_distance_m: float | None = None

    def __post_init__(self) -> None:
        for name, (low, high, unit, hint) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name == "focus_distance_m":
                continue
            if not (math.isfinite(value) and low <= value <= high):
                hint = _mistaken(value, low, high, unit) or hint
                raise GeometryError(f"{name} = {value:g} is outside {low:g} .. {high:g} {unit}: {hint}.")
        if len(self.shape) != 2 or min(self.shape) < 8:
            raise GeometryError(f"frame shape {tuple(self.shape)} px is too small: give two numbers of at least 8.")
        self._check_resolution()

    def _check_resolution(self) -> None:
        """No far field resolves less than half the wavelength."""
        if not self.near_field and min(self.object_pixel_m) < self.wavelength_m / 2:
            wide, pixel = self.pixel_m * max(self.shape), min(self.object_pixel_m)
            raise GeometryError(
                f"a detector {wide:.3g} m wide at distance_m = {self.distance_m:g} would give object pixels of {pixel:.3g} m, less than "
                f"half the wavelength ({self.wavelength_m:.3g} m): is the distance in metres, and the pixel size right?"
            )

    @property
    def wavelength_m(self) -> float:
        """Wavelength in metres."""
        return HC_EV_M / self.energy_ev

    @property
    def near_field(self) -> bool:
        """Whether the detector stands in the near field of the sample."""
        return self.focus_distance_m is not None

    @property
    def magnification(self) -> float:
        """(z1 + z2) / z1 in the near field, 1 in the far field."""
        if self.focus_distance_m is None:
            return 1.0
        return (self.focus_distance_m + self.distance_m) / self.focus_distance_m

    @property
    def effective_distance_m(self) -> float:
        """Propagation distance of the equivalent parallel beam, in metres (Fresnel scaling theorem; Paganin 2006, eq. B.3)."""
        return self.distance_m / self.magnification

    @property
    def object_pixel_m(self) -> tuple[float, float]:
        """Size (y, x) of an object pixel in metres: wavelength * distance / (pixels * pixel), or pixel / magnification."""
        if self.near_field:
            side = self.pixel_m / self.magnification
            return side, side
        scale = self.wavelength_m * self.distance_m / self.pixel_m
        return scale / self.shape[0], scale / self.shape[1]


def _mistaken(value: float, low: float, high: float, unit: str) -> str:
    """A question that names the unit which ``value`` may have been in; nothing if none would do."""
    for name, size in _MISTAKEN[unit].items():
        if low <= value * size <= high:
            return f"was it in {name}? Then it is {value * size:.6g} {unit}"
    return ""
