"""Preparation: what is done to a frame before it is reconstructed."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class Orientation(StrEnum):
    """The 8 symmetries of the square: how a frame as stored is turned into a frame whose axes run as the positions do.

    ``transpose`` is done first, then the flips.
    """

    IDENTITY = "identity"
    FLIP_Y = "flip_y"
    FLIP_X = "flip_x"
    ROTATE_180 = "rotate_180"
    TRANSPOSE = "transpose"
    TRANSPOSE_FLIP_Y = "transpose_flip_y"
    TRANSPOSE_FLIP_X = "transpose_flip_x"
    TRANSPOSE_ROTATE_180 = "transpose_rotate_180"

    @property
    def transposes(self) -> bool:
        """Whether rows and columns change places (before the flips)."""
        return self.value.startswith("transpose")

    @property
    def flips(self) -> tuple[bool, bool]:
        """Whether the rows (y) and the columns (x) run backwards."""
        both = self.value.endswith("rotate_180")
        return both or self.value.endswith("flip_y"), both or self.value.endswith("flip_x")


class Preparation(BaseModel):
    """Crop, mask and orientation. Part of the job's key."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    crop_px: PositiveInt | None = Field(None, description="side of the square kept around the centre; the whole frame if absent")
    centre_px: tuple[float, float] | Literal["auto"] | None = Field(
        None, description="zero frequency (y, x) in the frame as stored; 'auto' = centre of mass of the mean frame; middle (N//2) if absent"
    )
    orientation: Orientation = Orientation.IDENTITY
    mask_dataset: str | None = Field(None, description="dataset (y, x) in the file of the frames, 0 = good")
    saturated_counts: PositiveFloat | None = Field(None, description="counts from which on a pixel is not to be believed")
