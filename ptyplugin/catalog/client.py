"""What a Tiled client gives for a result: its node, with the words of ptyplugin. Tiled finds this class by its entry point."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import nan
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from tiled.client.container import Container

from ptyplugin.catalog.connection import catalog_errors
from ptyplugin.catalog.live import LIVE
from ptyplugin.catalog.publishing import PUBLISHED, PUBLISHING
from ptyplugin.io.live_view import LiveView, view_of_image
from ptyplugin.model import CatalogError, ErrorName, GeometryNumbers, Progress, Reconstruction, Verdict

_ARRAYS = ("object", "probe", "positions_m", "positions_px", "mask")
#: Not in every result.
_OPTIONAL = ("positions_start_px", "background", "intensities")
#: What people ask a result for.
_OF_RESULTS = frozenset((*_ARRAYS, "object_phase", "object_amplitude", "progress"))
_ERRORS: tuple[ErrorName, ...] = get_args(ErrorName)


class NotThereYet(CatalogError, KeyError):
    """A part of a result that its job does not have (yet); for Tiled's client a missing key like any other."""


@dataclass(frozen=True, slots=True, eq=False)
class LiveImage:
    """What a job showed of itself: phase (y, x) in radians and amplitude (y, x) of the object, float32.

    said: stage, iteration, iterations, frames, error, updated (Unix seconds), pixel_m, origin_m and more, as in the metadata's ``live``
    """

    phase: NDArray[np.float32]
    amplitude: NDArray[np.float32]
    said: dict[str, Any]

    def view(self) -> LiveView:
        """The same, ready to be shown."""
        (y, x), (pixel_y, pixel_x) = self.said["origin_m"], self.said["pixel_m"]
        top, left = (part[0] for part in self.said["window"])
        height, width = self.said["frame_shape"]
        return view_of_image(self.phase, self.amplitude, (pixel_y, pixel_x), (y + top * pixel_y, x + left * pixel_x), (height, width))


class PtychoReconstruction(Container):
    """A ptychographic reconstruction in the catalog. Its arrays: ``result["object_phase"][:]``; its numbers: ``result.metadata``."""

    def __repr__(self) -> str:
        metadata = self.metadata
        run = metadata.get("scan_uid") or "none"
        when = datetime.fromtimestamp(metadata["time"]).isoformat(sep=" ", timespec="minutes") if "time" in metadata else "?"
        error = metadata.get("quality", {}).get("error")
        quality = "" if error is None else f" error={error:.4g}"
        quality += f" {metadata['verdict']}" if metadata.get("verdict") else ""
        return (
            f"<PtychoReconstruction {self.item['id']} scan_id={metadata.get('scan_id')} run={run[:8]} {metadata.get('recipe')}"
            f"{quality} {metadata.get('state')} {when}>"
        )

    def __getitem__(self, keys: Any, _ignore_inlined_contents: bool = False) -> Any:
        """An array, the table, or what the job has shown.

        Raises:
            NotThereYet: a result has it, and this is none (yet).
        """
        try:
            return super().__getitem__(keys, _ignore_inlined_contents)
        except KeyError as error:
            if keys not in _OF_RESULTS:
                raise
            raise NotThereYet(
                f"{keys} of result {self.item['id']} is not in the catalog: its state is {self.metadata.get('state')}. "
                ".live() gives the image that its job has shown, if there is one."
            ) from error

    def reconstruction(self) -> Reconstruction:
        """Everything, as one object.

        Raises:
            CatalogError: the catalog is away, or the result is not all there yet.
        """
        with catalog_errors(f"read result {self.item['id']}"):
            arrays = {array: self[array].read() for array in (*_ARRAYS, *_OPTIONAL) if array in _ARRAYS or array in self}
            table = self["progress"].read().to_dict("records")
        metadata = self.metadata
        numbers = {number: metadata["geometry"][number] for number in GeometryNumbers.model_fields}
        return Reconstruction(
            **arrays,
            geometry=GeometryNumbers.model_validate(numbers).build(),
            progress=[_progress(metadata["job"], row, len(table)) for row in table],
            # JSON has no NaN.
            quality={name: nan if value is None else float(value) for name, value in metadata["quality"].items()},
            provenance=dict(metadata["provenance"]),
            verdict=_verdict(metadata),
        )

    def live(self) -> LiveImage | None:
        """The newest image that the job showed while it ran; None if it showed none.

        Raises:
            CatalogError: the catalog is away.
        """
        with catalog_errors(f"read the live image of {self.item['id']}"):
            said = self.refresh().metadata.get("live")
            if said is None:
                return None
            canvas, window = self[f"live/{said['current']}"], tuple(slice(*part) for part in said["window"])
            phase, amplitude = (np.asarray(canvas[name][window]) for name in ("object_phase", "object_amplitude"))
        return LiveImage(phase, amplitude, dict(said))

    def plot(self) -> Any:
        """A matplotlib figure: phase and amplitude of the object, probe, errors; the same picture as the PNG file's.

        While the job runs, what there is of it: phase and amplitude.

        Raises:
            CatalogError: the catalog is away, or there is nothing to show yet.
        """
        # Matplotlib is only for those who plot.
        image = self.live() if self.metadata.get("state") not in (PUBLISHING, PUBLISHED) else None
        if image is None:
            from ptyplugin.io.picture import reconstruction_figure

            return reconstruction_figure(self.reconstruction())
        from ptyplugin.io.live_picture import Told, live_figure

        metadata, said = self.metadata, image.said
        scan = f"Scan {metadata['scan_id']}" if metadata.get("scan_id") is not None else "Reconstruction"
        facts = f"job {metadata['job']}   ·   {said['frames']} frames   ·   {said['stage']}, iteration {said['iteration']}"
        state = "" if metadata["state"] == LIVE else f"  ·  {metadata['state']}"
        return live_figure(Told(f"{scan}  ·  {metadata['beamline']}  ·  {metadata['purpose']}{state}", facts), image.view())


def _verdict(metadata: Any) -> Verdict | None:
    word = metadata.get("verdict")
    return Verdict(word, metadata["convergence"], tuple(metadata["verdict_reasons"])) if word else None


def _progress(job: str, row: dict[str, Any], iterations: int) -> Progress:
    values = {name: row.get(name) for name in _ERRORS}
    errors = {name: float(value) for name, value in values.items() if value is not None and value == value}
    return Progress(job, row["stage"], int(row["iteration"]), iterations, float(row["seconds"]), errors)
