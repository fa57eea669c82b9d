"""Two services with one shared folder: the second says so and ends, before it has touched anything of the first's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptyplugin.model import Site, SiteError
from ptyplugin.service import Daemon


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "shared"


def _site(tmp_path: Path, shared: Path, name: str) -> Site:
    return Site(home=tmp_path / name, shared_dir=shared)


def test_a_shared_folder_is_of_one_service(tmp_path: Path, shared: Path) -> None:
    first = _site(tmp_path, shared, "first")
    for _ in range(2):
        Daemon(first).close()
    half_copied = first.jobs / ".half"
    half_copied.mkdir()
    with pytest.raises(SiteError, match=r"^shared_dir .*shared belongs to another service, whose home is .*first: give this one a folder"):
        Daemon(_site(tmp_path, shared, "second"))
    assert half_copied.exists()
    # The ledger may be taken to another machine, and the power may go while this is written.
    first.home.rename(tmp_path / "elsewhere")
    Daemon(_site(tmp_path, shared, "elsewhere")).close()
    (shared / "service").write_text("")
    Daemon(_site(tmp_path, shared, "elsewhere")).close()
    with pytest.raises(SiteError, match="elsewhere"):
        Daemon(_site(tmp_path, shared, "second"))


def test_who_shares_nothing_claims_nothing(tmp_path: Path) -> None:
    site = Site(home=tmp_path / "home")
    Daemon(site).close()
    assert not list(site.home.glob("service*"))
