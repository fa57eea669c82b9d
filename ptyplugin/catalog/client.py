"""What a Tiled client gives for a result: its node, with the words of ptyplugin. Tiled finds this class by its entry point."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tiled.client.container import Container

from ptyplugin.catalog.connection import catalog_errors
from ptyplugin.model import ErrorName, GeometryNumbers, Progress, Reconstruction

_ARRAYS = ("object", "probe", "positions_m", "positions_px", "mask")
_ERRORS: tuple[ErrorName, ...] = ("error", "running_error", "constraint_residual")


class PtychoReconstruction(Container):
    """A ptychographic reconstruction in the catalog. Its arrays: ``result["object_phase"][:]``; its numbers: ``result.metadata``."""

    def __repr__(self) -> str:
        metadata = self.metadata
        run = metadata.get("scan_uid") or "none"
        when = datetime.fromtimestamp(metadata["time"]).isoformat(sep=" ", timespec="minutes") if "time" in metadata else "?"
        error = metadata.get("quality", {}).get("error")
        quality = "" if error is None else f" error={error:.4g}"
        return (
            f"<PtychoReconstruction {self.item['id']} scan_id={metadata.get('scan_id')} run={run[:8]} {metadata.get('recipe')}"
            f"{quality} {metadata.get('state')} {when}>"
        )

    def reconstruction(self) -> Reconstruction:
        """Everything, as one object.

        Raises:
            CatalogError: the catalog is away, or the result is not there yet.
        """
        with catalog_errors(f"read result {self.item['id']}"):
            arrays = {name: self[name].read() for name in _ARRAYS}
            table = self["progress"].read().to_dict("records")
        metadata = self.metadata
        numbers = {name: metadata["geometry"][name] for name in GeometryNumbers.model_fields}
        return Reconstruction(
            **arrays,
            geometry=GeometryNumbers.model_validate(numbers).build(),
            progress=[_progress(metadata["job"], row, len(table)) for row in table],
            quality=dict(metadata["quality"]),
            provenance=dict(metadata["provenance"]),
        )

    def plot(self) -> Any:
        """A matplotlib figure: object phase and amplitude with their scale in micrometres, and the strongest mode of the probe.

        Raises:
            CatalogError: the catalog is away, or the result is not there yet.
        """
        from matplotlib.figure import Figure

        with catalog_errors(f"read result {self.item['id']}"):
            images = {"object phase (rad)": self["object_phase"].read(), "object amplitude": self["object_amplitude"].read()}
            images["probe amplitude"] = abs(self["probe"][0])
        pixel_y_um, pixel_x_um = (1e6 * side for side in self.metadata["geometry"]["object_pixel_m"])
        figure = Figure(figsize=(13, 4.2), layout="constrained")
        for axes, (title, image) in zip(figure.subplots(1, len(images)), images.items(), strict=True):
            rows, columns = image.shape
            extent = (0, columns * pixel_x_um, rows * pixel_y_um, 0)
            drawn = axes.imshow(image, cmap="gray" if title.startswith("object") else "magma", extent=extent)
            axes.set(title=title, xlabel="x (µm)", ylabel="y (µm)")
            figure.colorbar(drawn, ax=axes, shrink=0.8)
        figure.suptitle(f"scan {self.metadata.get('scan_id')}  {self.metadata.get('recipe')}")
        return figure


def _progress(job: str, row: dict[str, Any], iterations: int) -> Progress:
    errors = {name: float(row[name]) for name in _ERRORS if row[name] == row[name] and row[name] is not None}
    return Progress(job, row["stage"], int(row["iteration"]), iterations, float(row["seconds"]), errors)
