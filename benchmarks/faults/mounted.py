"""A small disk for a part of the suite: a tmpfs in a mount namespace of a process of ours (``unshare``), without rights of root."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def why_not() -> str:
    """Why there can be none here; nothing if it can."""
    if shutil.which("unshare") is None:
        return "there is no unshare"
    tried = subprocess.run([*_UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else "this system does not let a user mount a tmpfs"


def run_on_small_disk(module: str, folder: Path, size_mb: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """``python -m module FOLDER ARGUMENTS`` where ``folder`` is a disk of this size; what it says on stderr is seen at once."""
    from benchmarks.faults.service import ROOT

    mounted = f'mount -t tmpfs -o size={size_mb}m none "$1" && shift && exec "$@"'
    program = [sys.executable, "-m", module, str(folder), *map(str, arguments)]
    command = [*_UNSHARE, "sh", "-c", mounted, "sh", str(folder), *program]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)


def fill(folder: Path) -> Path:
    """Take all room."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 65536)
    return filler
