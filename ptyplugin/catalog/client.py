"""What a Tiled client gives for a result: its node, with the words of ptyplugin. Tiled finds this class by its entry point."""

from __future__ import annotations

from datetime import datetime
from math import nan
from typing import Any, get_args

from tiled.client.container import Container

from ptyplugin.catalog.connection import catalog_errors
from ptyplugin.model import CatalogError, ErrorName, GeometryNumbers, Progress, Reconstruction, Verdict

_ARRAYS = ("object", "probe", "positions_m", "positions_px", "mask")
#: Not in every result.
_OPTIONAL = ("positions_start_px", "background", "intensities")
_ERRORS: tuple[ErrorName, ...] = get_args(ErrorName)


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

    def reconstruction(self) -> Reconstruction:
        """Everything, as one object.

        Raises:
            CatalogError: the catalog is away, or the result is not all there yet.
        """
        name = self.item["id"]
        try:
            with catalog_errors(f"read result {name}"):
                arrays = {array: self[array].read() for array in (*_ARRAYS, *_OPTIONAL) if array in _ARRAYS or array in self}
                table = self["progress"].read().to_dict("records")
        except KeyError as error:
            raise CatalogError(f"{error.args[0]} of result {name} is not in the catalog yet: try again in a moment.") from error
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

    def plot(self) -> Any:
        """A matplotlib figure: phase and amplitude of the object, probe, errors; the same picture as the PNG file's.

        Raises:
            CatalogError: the catalog is away, or the result is not all there yet.
        """
        from ptyplugin.io.picture import reconstruction_figure  # Matplotlib is only for those who plot

        return reconstruction_figure(self.reconstruction())


def _verdict(metadata: Any) -> Verdict | None:
    word = metadata.get("verdict")
    return Verdict(word, metadata["convergence"], tuple(metadata["verdict_reasons"])) if word else None


def _progress(job: str, row: dict[str, Any], iterations: int) -> Progress:
    values = {name: row.get(name) for name in _ERRORS}
    errors = {name: float(value) for name, value in values.items() if value is not None and value == value}
    return Progress(job, row["stage"], int(row["iteration"]), iterations, float(row["seconds"]), errors)
