"""What tests of frames on their way share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from frame_ways import CHANNEL, SwmrFile

from ptyplugin.io.spool import spool_folder
from ptyplugin.io.spool_writer import SpoolWriter
from ptyplugin.model import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(home=tmp_path / "home", data_roots=[tmp_path])


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SwmrFile]:
    made = SwmrFile(tmp_path / "a.h5")
    yield made
    made.file.close()


@pytest.fixture
def writer(site: Site) -> Iterator[SpoolWriter]:
    with SpoolWriter(spool_folder(site, CHANNEL.name), CHANNEL, 10**7) as writer:
        writer.connected(True)
        yield writer
