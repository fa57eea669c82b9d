"""One simulated IOC for all tests of one worker: it takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ioc_clients import Seen, session

from ptyplugin.sim import ioc
from ptyplugin.sim.ioc.process import Ioc


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ioc]:
    """The IOC, in a process of its own."""
    with ioc.running(tmp_path_factory.mktemp("ioc")) as running:
        yield running


@pytest.fixture(scope="session")
def scans(served: Ioc) -> Seen:
    """A step scan and two fly scans."""
    return session(served, "scans")
