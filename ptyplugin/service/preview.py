"""What a live job is to the final one of its run: a preview, which ends when that is there; its result stands in for want of another."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from ptyplugin.io import newest_iteration
from ptyplugin.jobs import Entry, GrowthFolder, Ledger, Overtaken, read_snapshot
from ptyplugin.service.live_solving import Waits

_log = logging.getLogger(__name__)

#: Seconds after which a live job that made way looks again for frames that were announced and could not be read.
_AGAIN_S = 5.0
#: How long the result of a live job waits for a final one that nobody has heard of, seconds: it comes right behind the end of the run.
GRACE_S = 10.0


def how_far(entry: Entry, folder: Path) -> int:
    """What a next start of the job in ``folder`` goes on from: an iteration; of a live job, how many frames its snapshot has."""
    if entry.purpose != "live":
        return newest_iteration(folder)
    snapshot = read_snapshot(folder)
    return snapshot.frames if snapshot else 0


def finals_of(ledger: Ledger, live: Entry) -> Sequence[Entry]:
    """The final jobs of the run and detector of a live one.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    if live.run_uid is None:
        return []
    every = ledger.list(run_uid=live.run_uid, purpose="final")
    return [entry for entry in every if entry.kind == "job" and entry.source == live.source]


def final_image(ledger: Ledger, entry: Entry) -> str | None:
    """Why a live job is not needed any more, in a sentence: the final image of its run is there. None if it is, or is no live job.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    if entry.purpose != "live":
        return None
    done = [final for final in finals_of(ledger, entry) if final.state in ("solved", "published")]
    return f"the final image of its run has taken its place (job {done[-1].key})." if done else None


def is_to_be_published(ledger: Ledger, entry: Entry) -> bool:
    """Whether the result of a solved job goes into the catalog now. That of a live one waits for the final one, and makes way for it.

    Raises:
        LedgerError: the ledger cannot be read or written.
    """
    if (sentence := final_image(ledger, entry)) is not None:
        _drop(ledger, entry, sentence)
        return False
    if entry.purpose != "live":
        return True
    if finals := finals_of(ledger, entry):
        return not any(final.state in ("queued", "running") for final in finals)
    # A clock that was put back must not hold it up.
    return abs(time.time() - entry.changed_s) >= GRACE_S


def drop_previews(ledger: Ledger, entry: Entry) -> None:
    """A job is solved: if it is a final one, the results of live ones of its run go that are not in the catalog.

    Raises:
        LedgerError: the ledger cannot be read or written.
    """
    if entry.purpose == "final" and entry.run_uid is not None:
        for live in ledger.list(run_uid=entry.run_uid, purpose="live", state="solved"):
            if (sentence := final_image(ledger, live)) is not None:
                _drop(ledger, live, sentence)


def _drop(ledger: Ledger, entry: Entry, sentence: str) -> None:
    try:
        ledger.superseded(entry, sentence)
    except Overtaken as error:
        _log.debug("%s", error)
        return
    if entry.result is not None:
        try:
            entry.result.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s is not needed any more and cannot be removed (%s)", entry.result, error.strerror)


def make_way(ledger: Ledger, entry: Entry, folder: Path, frames: int) -> None:
    """Put back a live job that works on so many frames and waits for more; what came just now has it go on.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    ledger.step_aside(entry, Waits().lost_s)
    if GrowthFolder(folder).has_ended:
        ledger.hurry(entry.key)
    elif (ledger.show(entry.key).frames or 0) > frames:
        ledger.hurry(entry.key, _AGAIN_S)
    _log.info("job %s has %d frames, waits for more and makes way for others", entry.key, frames)
