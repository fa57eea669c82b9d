"""A job, or growth of one, and its arrays as one body of an HTTP request: its JSON alone, or an uncompressed ZIP of that and its arrays."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.jobs.contents import GROWTH_FILE, JOB_FILE, arrays_beside, parse
from ptyplugin.model import Growth, Job, JobError, Refusal

JSON_TYPE, ZIP_TYPE = "application/json", "application/zip"
#: A producer's token for the service's HTTP source.
TOKEN_VARIABLE = "PTYPLUGIN_TOKEN"
JOBS_PATH, GROWTH_PATH, RUNS_PATH = "/jobs", "/growth", "/runs"

_MOST_FILES = 20
_ARRAY_NAME = re.compile(r"[A-Za-z0-9_]+\.npy")


def pack(job: Job | Refusal | Growth, arrays: Mapping[str, NDArray[Any]]) -> tuple[bytes, str]:
    """The body of a request and its content type."""
    if not arrays:
        return job.to_bytes(), JSON_TYPE
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(GROWTH_FILE if isinstance(job, Growth) else JOB_FILE, job.to_bytes())
        for name, array in arrays.items():
            with archive.open(name, "w", force_zip64=True) as file:
                np.save(file, array, allow_pickle=False)
    return body.getvalue(), ZIP_TYPE


def unpack(body: bytes) -> tuple[Job | Refusal, dict[str, bytes]]:
    """The job in a body, and the .npy bytes of its arrays, which are those that it names.

    Raises:
        JobError: it is none; the message says why.
    """
    said, files = _opened(body, JOB_FILE)
    job = parse(said)
    _check_arrays(job, files)
    return job, files


def unpack_growth(body: bytes) -> tuple[Growth, dict[str, bytes]]:
    """The growth in a body, as ``unpack``.

    Raises:
        JobError: it is none; the message says why.
    """
    said, files = _opened(body, GROWTH_FILE)
    growth = Growth.from_bytes(said)
    _check_arrays(growth, files)
    return growth, files


def _opened(body: bytes, name: str) -> tuple[bytes, dict[str, bytes]]:
    """The file ``name``, and the others."""
    files = _unzipped(body, name) if body[:2] == b"PK" else {name: body}
    if name not in files:
        raise JobError(f"the ZIP has no {name} in it: put it and its arrays at its top.")
    return files.pop(name), files


def _check_arrays(job: Job | Refusal | Growth, files: Mapping[str, bytes]) -> None:
    needed, what = arrays_beside(job), "growth" if isinstance(job, Growth) else "job"
    if needed.keys() != files.keys():
        raise JobError(
            f"the {what} names the arrays {_listed(needed)}, and {_listed(files)} came: send the {what} with exactly its arrays."
        )
    for name, sha256 in needed.items():
        if hashlib.sha256(files[name]).hexdigest() != sha256:
            raise JobError(f"{name} is not the array that the {what} names (its sha256 differs): send the {what} again.")


def _unzipped(body: bytes, name: str) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            # Uncompressed, and all together not more than what came: nothing in it can fill the memory.
            small = len(members) <= _MOST_FILES and sum(member.file_size for member in members) <= len(body)
            if not small or any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise JobError("the ZIP is compressed or has too many files: make it with `zip -0 job.zip job.json *.npy`.")
            wrong = [member.filename for member in members if member.filename != name and not _ARRAY_NAME.fullmatch(member.filename)]
            if wrong:
                raise JobError(f"the ZIP has {wrong[0]!r:.80} in it: only {name} and arrays (.npy) are taken.")
            return {member.filename: archive.read(member) for member in members}
    except JobError:
        raise
    # It is foreign: whatever goes wrong while it is read is wrong with it.
    except Exception as error:
        raise JobError(f"the ZIP cannot be read ({type(error).__name__}: {str(error)[:100]}): send the job again.") from error


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "none"
