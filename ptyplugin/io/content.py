"""Knowing a file by its content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ptyplugin.model import FramesError


def content_id(path: Path) -> str:
    """``sha256:<64 hex digits>`` of the whole file: the same data give the same job key, wherever the file lies.

    Raises:
        FramesError: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise FramesError(f"{path} cannot be read ({error.strerror}): check the path and its permissions.") from error
