"""A disk that is full, and one that is read-only: a small tmpfs in a mount namespace of this process's own (``unshare``)."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.faults.service import ROOT, Service
from benchmarks.faults.table import Row
from ptyplugin.model import Site

_SIZE_MB, _READY_S = 96, 120.0
_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def disk(jobs: int, for_s: float) -> list[Row]:
    """Both faults, in a process that may mount; none where the system does not allow that."""
    why = _why_not()
    if why:
        return [Row("the disk is full, then read-only", 0, 0, 0, 0.0, f"not done: {why}")]
    with tempfile.TemporaryDirectory(prefix="ptyplugin-faults-") as folder:
        mounted = f'mount -t tmpfs -o size={_SIZE_MB}m none "$1" && exec "$2" -m benchmarks.faults.disk "$1" "$3" "$4"'
        command = [*_UNSHARE, "sh", "-c", mounted, "sh", folder, sys.executable, str(jobs), str(for_s)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return [Row("the disk is full, then read-only", 1, jobs, jobs, 0.0, done.stderr.strip().splitlines()[-1])]
    return [_row(line) for line in done.stdout.splitlines()]


def _why_not() -> str:
    if shutil.which("unshare") is None:
        return "there is no unshare"
    tried = subprocess.run([*_UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else "this system does not let a user mount a tmpfs"


def _row(line: str) -> Row:
    fault, over, lost, seconds, note = line.split("\t")
    return Row(fault, 1, int(over), int(lost), float(seconds), note)


def _fill(folder: Path) -> Path:
    """Take all room."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 65536)
    return filler


def _both(folder: Path, jobs: int, for_s: float) -> None:
    # Jobs are handed over to another disk, as from another host: what is accepted is safe there.
    with tempfile.TemporaryDirectory(prefix="ptyplugin-inbox-") as inbox:
        site = Site(home=folder / "home", inbox_dir=Path(inbox), ranks=1, device="cpu")
        with Service(site, Path(inbox).parent / f"{Path(inbox).name}.log") as service:
            service.wait(lambda: (site.home / "ledger.sqlite").exists(), _READY_S)
            for number, fault in enumerate(("the disk is full", "the disk is read-only")):
                begun, new = time.monotonic(), range(number * jobs, (number + 1) * jobs)
                if number == 0:
                    filler = _fill(folder)
                    keys = service.hand_over(new)
                    time.sleep(for_s)
                    filler.unlink()
                else:
                    # Not the mount itself, which is busy: the results alone.
                    subprocess.run(["mount", "--bind", str(site.results), str(site.results)], check=True)
                    subprocess.run(["mount", "-o", "remount,ro,bind", str(site.results)], check=True)
                    keys = service.hand_over(new)
                    time.sleep(for_s)
                    subprocess.run(["umount", "--lazy", str(site.results)], check=True)
                total = (number + 1) * jobs
                service.wait(lambda total=total: service.counts() == {"solved": total}, _READY_S)
                print(fault, jobs, service.lost(keys, "solved"), time.monotonic() - begun, f"for {for_s:g} s", sep="\t")
        Path(f"{inbox}.log").unlink(missing_ok=True)


if __name__ == "__main__":
    _both(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
