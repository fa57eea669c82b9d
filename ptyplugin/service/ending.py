"""The last line of each start in a job's log: how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import ptyplugin
from ptyplugin.model import Cancelled, PtypluginError
from ptyplugin.model.redaction import redacted


@contextmanager
def end_noted(log: Path, start: int) -> Iterator[None]:
    """Write into the job's log how what is done inside ended. A disk that has no room for the line is no matter of the job."""
    try:
        yield
    except Cancelled as error:
        _write(log, start, f"was put down: {error}")
        raise
    except PtypluginError as error:
        _write(log, start, f"ended without a result: {error}")
        raise
    _write(log, start, "ended with a result.")


def _write(log: Path, start: int, how: str) -> None:
    line = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} ptyplugin {ptyplugin.__version__}: start {start} {redacted(how)}\n"
    with suppress(OSError), log.open("a", encoding="utf-8") as file:
        file.write(line)
