"""The process variables: their names, kinds and values. Nothing of EPICS is imported here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ptyplugin.api.looking import Sight
from ptyplugin.jobs import Entry

#: Severities of EPICS. The last one: what is shown may not be so any more.
NO_ALARM, MINOR, MAJOR, INVALID = 0, 1, 2, 3
#: Bytes of a text, in UTF-8; of one that is not long, as Channel Access takes them.
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


_UM = 1e6
#: The end of a text that is longer.
_CUT = "…"
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
    Record("Iterations", "integer", "Iterations of all stages; 0 of a live job"),
    Record("Progress", "number", "Iterations that are done, of all; NaN of a live job", "%", (0.0, 100.0)),
    Record("ETA", "number", "Estimate of the time that is left; NaN if none", "s"),
    Record("Error", "number", "Error of the fit, 0 to 1"),
    Record("Width", "number", "Width of the object's images; NaN before the first one", "um"),
    Record("Height", "number", "Height of the object's images; NaN before the first one", "um"),
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


def readings(
    sight: Sight | None, outcome: Mapping[str, Any], now_s: float, size_m: tuple[float, float] = (math.nan, math.nan)
) -> dict[str, Reading]:
    """The values of all records but CANCEL, at this Unix time.

    outcome: what the result file says, where there is one; size_m: (y, x) of the object's images that are shown
    """
    if sight is None:
        return {record.name: Reading(record.start) for record in RECORDS if record.name != CANCEL}
    job = sight.job
    state, verdict = job.state.capitalize(), str(outcome.get("verdict") or "unknown").capitalize()
    is_silent = job.state == "running" and now_s > job.lease_until_s
    alarm = INVALID if is_silent else _SEVERITIES.get(state, NO_ALARM)
    doubt = _SEVERITIES.get(verdict, NO_ALARM)
    is_done = job.state in ("solved", "published")
    error = outcome.get("error") if is_done else sight.errors.get("error")
    return {
        "JobState": Reading(_STATES.index(state), alarm),
        "Job": Reading(job.key),
        "Purpose": Reading(job.purpose or ""),
        "ScanID": Reading(_integer(job.scan_id)),
        "RunUID": Reading(cut(job.run_uid or "", SHORT_TEXT)),
        "Frames": Reading(_integer(sight.frames)),
        "Stage": Reading(cut(sight.stage, SHORT_TEXT)),
        **_how_far(sight, is_done),
        "Error": Reading(math.nan if error is None else float(error)),
        "Width": Reading(_UM * size_m[1]),
        "Height": Reading(_UM * size_m[0]),
        "Verdict": Reading(_VERDICTS.index(verdict) if verdict in _VERDICTS else 0, doubt),
        "Message": Reading(cut(_message(job, outcome, is_silent), LONG_TEXT), max(alarm, doubt)),
        "Queued": Reading(sight.waiting),
    }


def outdated(shown: Mapping[str, Reading], sentence: str) -> dict[str, Reading]:
    """The values that were shown, when nobody knows whether they are still true, and why not."""
    return {name: Reading(reading.value, INVALID) for name, reading in shown.items()} | {
        "Message": Reading(cut(sentence, LONG_TEXT), INVALID)
    }


def cut(text: str, size: int) -> str:
    """As much of a text as has room in ``size`` bytes of UTF-8."""
    whole = text.encode()
    return text if len(whole) <= size else whole[: size - len(_CUT.encode())].decode(errors="ignore") + _CUT


def _how_far(sight: Sight, is_done: bool) -> dict[str, Reading]:
    iteration, iterations = sight.iterations
    left_s = sight.progress.left_s if sight.progress else math.nan
    done = min(1.0, iteration / iterations) if iterations else sight.job.fraction_done
    if sight.job.purpose == "live" and not is_done:
        # It goes on for as long as its scan.
        iterations, done, left_s = 0, math.nan, math.nan
    return {
        "Iteration": Reading(iteration),
        "Iterations": Reading(iterations),
        "Progress": Reading(100.0 if is_done else 100.0 * done),
        "ETA": Reading(0.0 if is_done else left_s),
    }


def _integer(number: int | None) -> int:
    """As far as a long of Channel Access goes."""
    return max(-(2**31), min(number or 0, 2**31 - 1))


def _message(job: Entry, outcome: Mapping[str, Any], is_silent: bool) -> str:
    if is_silent:
        expected = datetime.fromtimestamp(job.lease_until_s)
        return f"the service should have said something of this job by {expected:%H:%M:%S}: look whether it is stuck, or start it again."
    return job.sentence or " ".join(outcome.get("verdict_reasons") or ())
