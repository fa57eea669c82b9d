"""Jobs as JSON: what the commands, the service's HTTP app and its log say about a job is the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from ptyplugin.jobs.progress import JobProgress
from ptyplugin.jobs.view import Entry, Transition

#: What a result file says of how it turned out.
OUTCOME = ("error", "verdict", "verdict_reasons", "made_by")
#: Times that are said for people too.
_TIMES = {"arrived": "arrived_s", "changed": "changed_s"}


def record_of(entry: Entry) -> dict[str, Any]:
    """A job in JSON's types; times of day for people, and Unix seconds in what ends in ``_s``."""
    values = asdict(entry)
    first = ("key", "state", "sentence", "kind", "beamline", "scan_id", "run_uid", "source", "purpose", "recipe", "frames")
    said = {name: time_of(values[seconds]) for name, seconds in _TIMES.items()}
    ordered = {name: values.pop(name) for name in first}
    result = values.pop("result")
    return {**ordered, **values, "notes": list(entry.notes), "result": None if result is None else str(result), **said}


def entry_of(record: dict[str, Any]) -> Entry:
    """The job that such a record tells of.

    Raises:
        KeyError, TypeError: it is none.
    """
    values = {field.name: record[field.name] for field in fields(Entry)}
    values["notes"] = tuple(values["notes"])
    values["result"] = None if values["result"] is None else Path(values["result"])
    return Entry(**values)


def steps_of(history: Iterable[Transition]) -> list[dict[str, Any]]:
    """What happened to a job, in JSON's types."""
    return [{"at": time_of(one.at_s), **asdict(one)} for one in history]


def transitions_of(steps: Iterable[dict[str, Any]]) -> list[Transition]:
    """The transitions that such steps tell of.

    Raises:
        KeyError, TypeError: they are none.
    """
    return [Transition(**{field.name: step[field.name] for field in fields(Transition)}) for step in steps]


def time_of(seconds: float) -> str:
    """A time of day, with its zone."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def shown(entry: Entry, history: Iterable[Transition], progress: JobProgress | None, outcome: dict[str, Any]) -> dict[str, Any]:
    """A job with all that happened to it. outcome: what its result file says, if there is one"""
    how_far = None if progress is None else progress.model_dump(mode="json")
    return {**record_of(entry), **dict.fromkeys(OUTCOME), **outcome, "progress": how_far, "history": steps_of(history)}
