"""A shared folder is of one service alone: a second one would cancel the pilots of the first, and tidy up among its jobs."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from ptyplugin.model import Site, SiteError

#: In the shared folder: whose it is. In the home: who that is; it goes with the ledger wherever that is taken.
_OWNER_FILE, _NAME_FILE = "service", "service-name"
_NAME = re.compile(r"[0-9a-f]{16}")


def claim_shared(site: Site) -> None:
    """Make the site's shared folder that of its home. To be called by who has the ledger.

    Raises:
        SiteError: it is another service's.
        OSError: it cannot be used.
    """
    if site.shared == site.home:
        return
    ours = _first_word(site.home / _NAME_FILE) or secrets.token_hex(8)
    _write(site.home / _NAME_FILE, ours)
    owner = site.shared / _OWNER_FILE
    if (theirs := _first_word(owner)) and theirs != ours:
        home = owner.read_text(errors="replace").partition(" ")[2].strip()
        raise SiteError(
            f"shared_dir {site.shared} belongs to another service, whose home is {home or 'not known'}: give this one a folder of its own; "
            f"if that service is no more, remove {owner}."
        )
    _write(owner, f"{ours} {site.home}")


def _first_word(file: Path) -> str:
    """The name in the file; nothing if there is none, or the power went while it was written."""
    word = file.read_text(errors="replace").partition(" ")[0] if file.exists() else ""
    return word if _NAME.fullmatch(word) else ""


def _write(file: Path, text: str) -> None:
    if file.exists() and file.read_text(errors="replace") == text:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.tmp")
    temporary.write_text(text)
    temporary.replace(file)
