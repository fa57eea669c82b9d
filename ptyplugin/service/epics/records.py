"""The process variables: their names, kinds and values. Nothing of EPICS is imported here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ptyplugin.api.looking import Sight
from ptyplugin.jobs import Entry

#: Severities of EPICS.
NO_ALARM, MINOR, MAJOR = 0, 1, 2
#: Characters of a text; of one that is not long, as Channel Access takes them.
LONG_TEXT, SHORT_TEXT = 500, 39


@dataclass(frozen=True, slots=True)
class Record:
    """A process variable.

    name: after the prefix; about: what it says; unit, and limits for screens, of a number; choices: of an enum
    """

    name: str
    kind: Literal["enum", "integer", "number", "text", "long text"]
    about: str
    unit: str = ""
    limits: tuple[float, float] = (0.0, 0.0)
    choices: tuple[str, ...] = ()

    @property
    def start(self) -> Any:
        """Its value before there is any."""
        return {"enum": 0, "integer": 0, "number": math.nan}.get(self.kind, "")


@dataclass(frozen=True, slots=True)
class Reading:
    """A value and its severity."""

    value: Any
    severity: int = NO_ALARM


_STATES = ("Idle", "Queued", "Running", "Solved", "Published", "Failed", "Cancelled")
_VERDICTS = ("Unknown", "Good", "Doubtful", "Failed")
_SEVERITIES = {"Failed": MAJOR, "Doubtful": MINOR}

CANCEL = "Cancel"
#: What can be put to CANCEL; it is back at the first at once.
CANCEL_CHOICES = ("Done", "Cancel")

RECORDS = (
    Record("JobState", "enum", "What the job is doing", choices=_STATES),
    Record("Job", "text", "Key of the job"),
    Record("Purpose", "text", "live: while the scan goes on; final: after it"),
    Record("ScanID", "integer", "Scan id of the run; 0 if it has none"),
    Record("RunUID", "text", "Uid of the run"),
    Record("Frames", "integer", "Frames that the job has"),
    Record("Stage", "text", "Algorithm of this stage"),
    Record("Iteration", "integer", "Iterations that are done"),
    Record("Iterations", "integer", "Iterations of all stages"),
    Record("Progress", "number", "Iterations that are done, of all", "%", (0.0, 100.0)),
    Record("ETA", "number", "Estimate of the time that is left", "s"),
    Record("Error", "number", "Error of the fit, 0 to 1"),
    Record("Verdict", "enum", "How far to trust the image", choices=_VERDICTS),
    Record("Message", "long text", "Why the job is in this state, or what speaks against its image"),
    Record("Queued", "integer", "Jobs that wait"),
    Record(CANCEL, "enum", "Put 1 to cancel the job that runs", choices=CANCEL_CHOICES),
)

#: Images, NTNDArray of float32 over PVAccess: what they show, and the unit of their pixels' values.
IMAGES = {
    "Image:Phase": ("Phase of the object", "rad"),
    "Image:Amplitude": ("Amplitude of the object", ""),
    "Image:Probe": ("Amplitude of the strongest mode of the probe", ""),
}


def readings(sight: Sight | None, outcome: Mapping[str, Any]) -> dict[str, Reading]:
    """The values of all records but CANCEL; outcome: what the result file says, where there is one."""
    if sight is None:
        return {record.name: Reading(record.start) for record in RECORDS if record.name != CANCEL}
    job, progress = sight.job, sight.progress
    state, verdict = job.state.capitalize(), str(outcome.get("verdict") or "unknown").capitalize()
    is_done = job.state in ("solved", "published")
    iteration, iterations = sight.iterations
    done = 1.0 if is_done else min(1.0, iteration / iterations) if iterations else job.fraction_done
    error = outcome.get("error") if is_done else sight.errors.get("error")
    return {
        "JobState": Reading(_STATES.index(state), _SEVERITIES.get(state, NO_ALARM)),
        "Job": Reading(job.key),
        "Purpose": Reading(job.purpose or ""),
        "ScanID": Reading(_integer(job.scan_id)),
        "RunUID": Reading((job.run_uid or "")[:SHORT_TEXT]),
        "Frames": Reading(_integer(sight.frames)),
        "Stage": Reading(sight.stage[:SHORT_TEXT]),
        "Iteration": Reading(iteration),
        "Iterations": Reading(iterations),
        "Progress": Reading(100.0 * done),
        "ETA": Reading(0.0 if is_done else progress.left_s if progress else math.nan),
        "Error": Reading(math.nan if error is None else float(error)),
        "Verdict": Reading(_VERDICTS.index(verdict) if verdict in _VERDICTS else 0, _SEVERITIES.get(verdict, NO_ALARM)),
        "Message": Reading(_message(job, outcome)[:LONG_TEXT]),
        "Queued": Reading(sight.waiting),
    }


def _integer(number: int | None) -> int:
    """As far as a long of Channel Access goes."""
    return max(-(2**31), min(number or 0, 2**31 - 1))


def _message(job: Entry, outcome: Mapping[str, Any]) -> str:
    return job.sentence or " ".join(outcome.get("verdict_reasons") or ())
