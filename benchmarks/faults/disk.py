"""A disk that is full, and one that is read-only: a small tmpfs in a mount namespace of this process's own (``unshare``)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.faults.mounted import fill, run_on_small_disk, why_not
from benchmarks.faults.service import Service
from benchmarks.faults.table import Row
from ptyplugin.model import Site

_SIZE_MB, _READY_S = 96, 120.0


def disk(jobs: int, for_s: float) -> list[Row]:
    """Both faults, in a process that may mount; none where the system does not allow that."""
    why = why_not()
    if why:
        return [Row("the disk is full, then read-only", 0, 0, 0, 0.0, f"not done: {why}")]
    with tempfile.TemporaryDirectory(prefix="ptyplugin-faults-") as folder:
        done = run_on_small_disk("benchmarks.faults.disk", Path(folder), _SIZE_MB, jobs, for_s)
    if done.returncode:
        return [Row("the disk is full, then read-only", 1, jobs, jobs, 0.0, f"it ended with {done.returncode}")]
    return [_row(line) for line in done.stdout.splitlines()]


def _row(line: str) -> Row:
    fault, over, lost, seconds, note = line.split("\t")
    return Row(fault, 1, int(over), int(lost), float(seconds), note)


def _both(folder: Path, jobs: int, for_s: float) -> None:
    # Jobs are handed over to another disk, as from another host: what is accepted is safe there.
    with tempfile.TemporaryDirectory(prefix="ptyplugin-inbox-") as inbox:
        site = Site(home=folder / "home", inbox_dir=Path(inbox), ranks=1, device="cpu")
        with Service(site, Path(inbox).parent / f"{Path(inbox).name}.log") as service:
            service.wait(lambda: (site.home / "ledger.sqlite").exists(), _READY_S)
            for number, fault in enumerate(("the disk is full", "the disk is read-only")):
                begun, new = time.monotonic(), range(number * jobs, (number + 1) * jobs)
                if number == 0:
                    filler = fill(folder)
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
