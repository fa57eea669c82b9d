"""The daemon of the fault suite as a process: ``python -m benchmarks.faults.served SITE``."""

from __future__ import annotations

import signal
import sys

from benchmarks.faults.service import site_of
from ptyplugin.service import Daemon, Mpiexec, Place
from ptyplugin.service.logs import set_up_logs


def _launcher(place: Place) -> Mpiexec:
    return Mpiexec(place.site.home / "slots" / place.name, place.ranks, gpus=(), solve="benchmarks.faults.jobs:short")


def main(text: str) -> None:
    """Serve until SIGTERM."""
    set_up_logs()
    with Daemon(site_of(text), _launcher) as daemon:
        signal.signal(signal.SIGTERM, lambda *_: daemon.stop())
        daemon.run()


if __name__ == "__main__":
    main(sys.argv[1])
