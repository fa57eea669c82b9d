"""Profile: how one beamline's documents map to Geometry, Scan, Frames, preparation and a default Recipe.

No host paths stand in it. It is data: nothing in it is evaluated.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from ptyplugin.model.preparation import Orientation
from ptyplugin.model.recipe import DEFAULT_RECIPE, Recipe
from ptyplugin.model.scan import Subpixel

#: Every unit that a profile or a data key may name, as a factor to the stored unit (m or eV).
LENGTH_UNITS_M = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "micron": 1e-6, "microns": 1e-6, "nm": 1e-9, "pm": 1e-12}
#: A clock may count triggers instead of seconds.
TIME_UNITS_S = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "triggers": 1.0}
ENERGY_UNITS_EV = {"eV": 1.0, "ev": 1.0, "keV": 1e3, "kev": 1e3, "J": 1.0 / 1.602176634e-19}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Quantity(_Table):
    """A number with its unit: a value, or where in the documents it stands (exactly one of the four)."""

    value: float | None = Field(None, description="the number itself")
    start: str | None = Field(None, description="key in the start document, dots go down: 'beamline.energy'")
    configuration: str | None = Field(None, description="data key in the configuration of any device of the stream")
    reading: str | None = Field(None, description="data key of an event: the first one of the baseline or detector stream counts")
    unit: str | None = Field(None, description="unit of the number; if absent, the unit that the data key names")

    @model_validator(mode="after")
    def _exactly_one(self) -> Quantity:
        given = [name for name in ("value", "start", "configuration", "reading") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of value, start, configuration, reading (given: {', '.join(given) or 'none'})")
        if self.unit is None and given[0] in ("value", "start"):
            raise ValueError("give the unit: a value or a key of the start document has none of its own")
        return self


class Axis(_Table):
    """One motor: its data key, unit and sign."""

    key: str = Field(description="data key of the motor's readback in the events")
    unit: str | None = Field(None, description="unit of the readback; if absent, the unit that its data key names")
    sign: Literal[1, -1] = Field(1, description="-1 where the patch moves against the motor")


class DetectorTable(_Table):
    """The area detector."""

    key: str = Field(description="data key of its images, e.g. 'eiger_image'")
    stream: str = "primary"
    pixel_m: PositiveFloat = Field(description="side of a pixel, metres")
    orientation: Orientation = Orientation.IDENTITY
    mask_dataset: str | None = Field(None, description="dataset (y, x) in the frames' file, 0 = good")
    saturated_counts: PositiveFloat | None = None


class GeometryTable(_Table):
    """Energy and distances."""

    energy: Quantity
    distance: Quantity = Field(description="sample to detector")
    focus_distance: Quantity | None = Field(None, description="focus to sample; makes it near field")


class ClockTable(_Table):
    """Positions that are captured at a rate of their own find their frame by time: of each sample and of each frame, on one clock."""

    samples: str | None = Field(None, description="data key of the samples' times, in their stream; the events' timestamps of y if absent")
    frames: str | None = Field(
        None, description="data key of the frames' times, in the detector's stream; the events' timestamps of its images if absent"
    )
    exposure: Quantity = Field(description="how long a frame takes; 1 'triggers' where the clock counts triggers")
    stamped: Literal["start", "end"] = Field("start", description="which moment of its exposure a frame's time is")


class PositionsTable(_Table):
    """The two motors that scan."""

    y: Axis
    x: Axis
    stream: str | None = Field(None, description="stream of their readbacks; the detector's if absent")
    substeps: PositiveInt | None = Field(
        None,
        description="positions of each frame: 1 for the mean of those captured while it was exposed, n for the means of n parts of the "
        "exposure; if absent, captured ones are averaged, and those that an event lists are all kept",
    )
    clock: ClockTable | None = Field(None, description="find each frame's positions by time; by number if absent")
    largest_mismatch: float = Field(
        0.05, ge=0, le=1, description="share of frames without position, or positions without frame, up to which the rest is used"
    )


class PreparationTable(_Table):
    """Crop of the frames."""

    crop_px: PositiveInt | None = None
    centre_px: tuple[float, float] | Literal["auto"] | None = None


class ReconstructionTable(_Table):
    """What is run when nobody says otherwise."""

    recipe: str = DEFAULT_RECIPE
    probe_modes: PositiveInt = 1
    object_modes: PositiveInt = 1
    subpixel: Subpixel = "probe"
    seed: int = Field(0, ge=0)

    @field_validator("recipe")
    @classmethod
    def _canonical(cls, text: str) -> str:
        return str(Recipe.parse(text))


class LiveTable(_Table):
    """What is run while the scan goes on; its presence asks for it."""

    recipe: str = Field("DM(30)", description="iterations go on as long as frames come, and as many as this says after the last")
    probe_modes: PositiveInt = 1
    first_share: float = Field(
        0.05, gt=0, le=1, description="share of the announced frames with which it begins, where their number is known"
    )
    first_frames: PositiveInt = Field(64, description="frames with which it begins at the latest")
    pva: str | None = Field(
        None, description="PV Access channel of the detector's images (NTNDArray), for frames that no file shows in time"
    )

    @field_validator("recipe")
    @classmethod
    def _canonical(cls, text: str) -> str:
        return str(Recipe.parse(text))


class Profile(_Table):
    """One beamline's names for its things."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    beamline: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="top folder of the beamline in the catalog")
    plan_names: list[str] = Field(
        default=[], description="plans whose runs are ptychography; if empty, runs with the detector's key or both motors"
    )
    monitor: str | None = Field(
        None,
        description="data key, in the detector's stream, of what measures the intensity of the beam, e.g. 'i0'; its scale does not matter",
    )

    detector: DetectorTable
    geometry: GeometryTable
    positions: PositionsTable
    preparation: PreparationTable = PreparationTable()
    reconstruction: ReconstructionTable = ReconstructionTable()
    live: LiveTable | None = Field(None, description="reconstruct while the scan goes on; only afterwards if absent")
