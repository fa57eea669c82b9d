"""Site: where this installation keeps its things. The only place of host paths; a TOML file or arguments, never a profile."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import get_args
from urllib.parse import unquote, urlparse

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from ptyplugin.model.errors import FramesError, OutsideDataRoots, SiteError
from ptyplugin.model.job import DeviceName
from ptyplugin.model.site_errors import said_wrong
from ptyplugin.model.slurm import SlurmNumbers
from ptyplugin.model.sources import SourceTable

#: Environment variable that names the site's TOML file.
SITE_VARIABLE = "PTYPLUGIN_SITE"


class SlotNumbers(BaseModel):
    """A place for one job at a time: MPI ranks that are kept warm, with GPUs of their own or on the processor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpus: list[NonNegativeInt] = Field(default=[], description="numbers of its GPUs, as `ptyplugin doctor` shows them; none: the processor")
    ranks: PositiveInt | None = Field(None, description="MPI ranks; one per GPU, or one, if absent")
    time_limit_s: PositiveFloat | None = Field(None, description="how long a job may take; as long as it likes if absent")
    slurm: SlurmNumbers | None = Field(None, description="its ranks run under Slurm, in such an allocation; on this machine if absent")

    @model_validator(mode="after")
    def _here_or_under_slurm(self) -> SlotNumbers:
        if self.slurm and (self.gpus or self.ranks):
            raise ValueError("gpus and ranks are of slots on this machine: in [slot.slurm], write gpus_per_node and ranks_per_node")
        return self


class Site(BaseModel):
    """Folders and addresses of one installation.

    ``home`` holds the inbox, the ledger and the folders of jobs: a local disk. ``results_dir`` is permanent.
    Secrets are not in here: the Tiled key comes from TILED_API_KEY.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(default_factory=lambda: Path.home() / ".local" / "share" / "ptyplugin")
    shared_dir: Path | None = Field(None, description="folders of jobs, which nodes of a cluster must see; in ``home`` if absent")
    results_dir: Path | None = Field(None, description="where result files go; <home>/results if absent")
    inbox_dir: Path | None = Field(None, description="where jobs are handed over; <home>/inbox if absent")
    data_roots: list[Path] = Field(default=[], description="folders under which detector files may be read")
    path_map: dict[str, str] = Field(default={}, description="path prefix in documents -> path prefix on this host")
    tiled_uri: str | None = Field(None, description="address of the Tiled server, e.g. http://127.0.0.1:8000")
    raw_path: str = Field("{beamline}/raw", description="path of the raw runs in the catalog")
    processed_path: str = Field("{beamline}/processed/ptyplugin", description="path of the results in the catalog")
    ranks: int = Field(1, ge=1, description="MPI ranks of a job that does not say")
    device: DeviceName = Field("auto", description="what a job that does not say is computed on: auto takes a GPU that can be used")
    memory_gb: PositiveFloat | None = Field(None, description="memory that a job may use, all its ranks together; what is there if absent")
    keep_job_folders_days: PositiveFloat | None = Field(
        None, description="how long after its end a job's folder (arrays, log) stays; for ever if absent. Results always stay"
    )

    spool_gb: PositiveFloat = Field(
        20.0, description="room in ``home`` for the last frames of each detector that sends them over the network, GB"
    )

    http_port: int = Field(8770, ge=0, le=65535, description="port of the service's HTTP app at 127.0.0.1; 0: any that is free")
    slot: list[SlotNumbers] = Field(default=[], description="what solves jobs at the same time; one with ``ranks`` if absent")
    source: list[SourceTable] = Field(default=[], description="from where documents and jobs come, beside the inbox")

    @field_validator("slot")
    @classmethod
    def _each_gpu_once(cls, slots: list[SlotNumbers]) -> list[SlotNumbers]:
        named = [gpu for slot in slots for gpu in slot.gpus]
        if twice := sorted({gpu for gpu in named if named.count(gpu) > 1}):
            raise ValueError(f"GPU {twice[0]} is named twice: two slots cannot share a card")
        return slots

    @field_validator("slot")
    @classmethod
    def _each_port_once(cls, slots: list[SlotNumbers]) -> list[SlotNumbers]:
        named = [slot.slurm.port for slot in slots if slot.slurm and slot.slurm.port]
        if twice := sorted({port for port in named if named.count(port) > 1}):
            raise ValueError(f"port {twice[0]} is named twice in slot.slurm: each slot listens at its own; give another, or 0 for any")
        return slots

    @field_validator("home", "shared_dir", "results_dir", "inbox_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    @field_validator("data_roots")
    @classmethod
    def _absolute_roots(cls, paths: list[Path]) -> list[Path]:
        return [path.expanduser().absolute() for path in paths]

    @field_validator("raw_path", "processed_path")
    @classmethod
    def _path_in_the_catalog(cls, path: str) -> str:
        try:
            filled = path.format(beamline="beamline")
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"{path!r} is no path in the catalog: only {{beamline}} is filled in") from error
        if not filled.strip("/"):
            raise ValueError("the path is empty: results and raw runs need a folder of their own")
        return path

    @property
    def inbox(self) -> Path:
        """Folder in which jobs are handed over."""
        return self.inbox_dir or self.home / "inbox"

    @property
    def ledger(self) -> Path:
        """The daemon's SQLite file."""
        return self.home / "ledger.sqlite"

    @property
    def jobs(self) -> Path:
        """One folder per job taken in: its arrays, its log."""
        return self.shared / "jobs"

    @property
    def shared(self) -> Path:
        """What nodes of a cluster see too, if there are any."""
        return self.shared_dir or self.home

    @property
    def spool(self) -> Path:
        """One folder per channel: the last frames that a detector sent over the network."""
        return self.home / "spool"

    @property
    def results(self) -> Path:
        """Permanent place of the result files."""
        return self.results_dir or self.home / "results"

    def local_path(self, uri: str) -> Path:
        """The file behind a ``file://`` address of a document: mapped to this host, symlinks resolved, checked.

        Raises:
            OutsideDataRoots: the file does not lie under any of ``data_roots``.
            FramesError: the address is no file.
        """
        parts = urlparse(uri)
        if parts.scheme not in ("file", "") or not parts.path or "\0" in unquote(parts.path):
            raise FramesError(f"{uri!r} is not the address of a file: only file:// addresses are read.")
        path = unquote(parts.path)
        for prefix, place in sorted(self.path_map.items(), key=lambda item: -len(item[0])):
            if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
                path = place.rstrip("/") + path[len(prefix.rstrip("/")) :]
                break
        resolved = Path(path).resolve()
        if not any(resolved.is_relative_to(root.resolve()) for root in self.data_roots):
            roots = ", ".join(str(root) for root in self.data_roots) or "none"
            raise OutsideDataRoots(
                f"{resolved} lies outside the site's data_roots ({roots}): add its folder to data_roots if it may be read."
            )
        return resolved


def _keys() -> set[str]:
    tables = (Site, SlotNumbers, *get_args(get_args(SourceTable)[0]))
    return {name for table in tables for name in table.model_fields}


def load_site(path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Site:
    """Read the site's TOML: ``path``, else the file that PTYPLUGIN_SITE names, else the defaults.

    Raises:
        SiteError: the file is missing, no TOML, or has wrong keys; the message names all of them.
    """
    named = path or (Path(environment[SITE_VARIABLE]) if environment.get(SITE_VARIABLE) else None)
    if named is None:
        return Site()
    try:
        return Site.model_validate(tomllib.loads(named.read_text(encoding="utf-8")))
    except OSError as error:
        raise SiteError(f"the site file {named} cannot be read ({error.strerror}): check the path or {SITE_VARIABLE}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SiteError(f"the site file {named} is no TOML: {error}.") from error
    except ValidationError as error:
        raise SiteError(f"site file {named}: {said_wrong(error, _keys())}") from error
