"""What the service says on stderr: one line for each thing that happens, for people or for programs, without secrets."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

import ptyplugin
from ptyplugin.model.redaction import redacted

LogFormat = Literal["text", "json"]
#: Name of the attribute of a log record in which fields for programs are: ``_log.info(..., extra={FIELDS: {...}})``.
FIELDS = "fields"


def set_up_logs(kind: LogFormat = "text", stream: TextIO | None = None, rank: int | None = None) -> None:
    """Have all that this process, or this rank, logs go to ``stream`` (stderr), in this format."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if kind == "json" else TextLines(rank))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # Each request, with its address; with how many threads something computes that is not used.
    for library in ("httpx", "numexpr"):
        logging.getLogger(library).setLevel(logging.WARNING)


class TextLines(logging.Formatter):
    """Time, level, where from, and the sentence."""

    def __init__(self, rank: int | None = None) -> None:
        whose = "" if rank is None else f"rank {rank} "
        super().__init__(f"%(asctime)s {whose}%(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback below it if there is one."""
        return redacted(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, version, and fields such as job, run_uid, scan_id, state."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        what = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
            "version": ptyplugin.__version__,
        }
        for name, value in getattr(record, FIELDS, {}).items():
            what[name] = redacted(value) if isinstance(value, str) else value
        if record.exc_info:
            what["traceback"] = redacted(self.formatException(record.exc_info))
        return json.dumps(what, ensure_ascii=False, default=str)
