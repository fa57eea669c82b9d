"""A daemon as a process of its own: HOME of the site, RANKS (0 = inline)."""

from __future__ import annotations

import sys
from pathlib import Path

from ptyplugin.model import Site
from ptyplugin.service import Daemon, Inline, Mpiexec

if __name__ == "__main__":
    ranks = int(sys.argv[2])
    home = Path(sys.argv[1])
    launcher = Mpiexec(home / "slots" / "1", ranks, solve="stub_solving:solve") if ranks else Inline("stub_solving:solve")
    with Daemon(Site(home=home), launcher, lambda result, key: None) as daemon:
        daemon.run()
