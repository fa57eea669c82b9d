"""Which job is next: the question to the ledger, in SQL."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

#: Nothing in the ledger lies further ahead than this, seconds: what does was written before the clock was put back, and is due.
_CLOCK_S = 3600.0
#: How long the final job of a run makes way for a live one that could go on and is not taken up, seconds.
_LATELY_S = 20.0

#: May be started: it waits and its time has come, or it runs and nobody has heard of it for too long. What lies too far ahead counts as
#: past.
_DUE = """(
    ({job}.state = 'queued' AND ({job}.not_before_s <= :now OR {job}.not_before_s > :clock))
    OR ({job}.state = 'running' AND ({job}.lease_until_s < :now OR {job}.lease_until_s > :clock))
)"""
_RUNS = "({job}.state = 'running' AND {job}.lease_until_s BETWEEN :now AND :clock)"
_OTHERS = "SELECT 1 FROM job AS other WHERE other.run_uid = job.run_uid AND other.source = job.source AND other.kind = 'job'"

#: A final job lets its run's live one end: that runs, or could be taken up at any moment. What could be and is not has some trouble
#: of its own, for which nobody waits. A live job never begins beside or after the final one.
NEXT_JOB = f"""
SELECT * FROM job WHERE {_DUE.format(job="job")}
AND needed_bytes > :above AND needed_bytes <= :up_to
AND device IN (SELECT value FROM json_each(:devices)) AND key NOT IN (SELECT value FROM json_each(:others))
AND NOT (purpose = 'final' AND EXISTS ({_OTHERS} AND other.purpose = 'live' AND (
    {_RUNS.format(job="other")} OR ({_DUE.format(job="other")} AND (other.not_before_s > :lately OR other.changed_s > :lately))
)))
AND NOT (purpose = 'live' AND EXISTS ({_OTHERS} AND other.purpose = 'final' AND {_RUNS.format(job="other")}))
ORDER BY
    purpose IS NOT 'live' AND priority >= 0 AND arrived_s <= :turn DESC,
    purpose IS 'live' DESC,
    priority DESC, needed_bytes > :rather_above DESC, number
LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Fitting:
    """The jobs that suit somebody who starts them.

    above_bytes, up_to_bytes: memory that they need; rather_above_bytes: of jobs alike in priority, those that need more come first
    devices: what they want to be computed on; others: keys of jobs that run already, whatever their leases say
    turn_after_s: final jobs that have waited so long come before live ones
    """

    above_bytes: int = -1
    up_to_bytes: int = 2**62
    rather_above_bytes: int = 2**62
    devices: Collection[str] = ("auto", "cpu", "gpu")
    others: Collection[str] = ()
    turn_after_s: float = math.inf

    def values(self, now_s: float) -> dict[str, Any]:
        """What ``NEXT_JOB`` asks for."""
        return {
            "now": now_s,
            "clock": now_s + _CLOCK_S,
            "lately": now_s - _LATELY_S,
            "turn": now_s - self.turn_after_s,
            "above": self.above_bytes,
            "up_to": self.up_to_bytes,
            "rather_above": self.rather_above_bytes,
            "devices": json.dumps(list(self.devices)),
            "others": json.dumps(list(self.others)),
        }
