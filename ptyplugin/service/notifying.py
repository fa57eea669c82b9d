"""Notifications: a mail, or a line in a chat, when a job has ended. Jobs never wait for them."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ptyplugin.io import read_result
from ptyplugin.io.outcome import outcome_of
from ptyplugin.jobs import Entry, Ledger, Untold
from ptyplugin.model import LedgerError, PtypluginError, SiteError
from ptyplugin.model.redaction import NOTIFY_VARIABLE
from ptyplugin.service.complaints import Complaints

_log = logging.getLogger(__name__)

#: What is told; all of it unless the variable says less.
Event = Literal["finished", "doubtful", "failed"]
EVENTS_VARIABLE = "PTYPLUGIN_NOTIFY_ON"
#: Seconds before a notification that was not taken is sent again: from the first to the longest, doubled each time; when it is given up.
FIRST_WAIT_S, LONGEST_WAIT_S, GIVE_UP_S = 5.0, 600.0, 86400.0
#: Notifications that are in memory; more of them wait in the ledger.
_MOST = 1000
#: How often is looked whether to stop, seconds.
_POLL_S = 0.2
_KINDS = {"finished": "success", "doubtful": "warning", "failed": "failure"}


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told: a line, some more lines, and a picture if there is one."""

    event: Event
    title: str
    body: str
    picture: Path | None = None


#: (address, notice) -> whether it was taken.
Send = Callable[[str, Notice], bool]


@dataclass(slots=True)
class _Letter:
    """A notice on its way to one address: number of the transition, name of the address, since when (Unix seconds)."""

    number: int
    name: str
    notice: Notice
    since_s: float
    due_s: float = 0.0
    wait_s: float = FIRST_WAIT_S


def addresses_of(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The addresses in PTYPLUGIN_NOTIFY, as apprise writes them, with blanks or commas between."""
    return environment.get(NOTIFY_VARIABLE, "").replace(",", " ").split()


def events_of(environment: Mapping[str, str] = os.environ) -> tuple[Event, ...]:
    """What PTYPLUGIN_NOTIFY_ON asks for.

    Raises:
        SiteError: there is no such event.
    """
    wanted = environment.get(EVENTS_VARIABLE, "").replace(",", " ").split() or list(get_args(Event))
    if unknown := [word for word in wanted if word not in get_args(Event)]:
        raise SiteError(f"{EVENTS_VARIABLE} names {unknown[0]!r}: it may name {', '.join(get_args(Event))}.")
    return tuple(event for event in get_args(Event) if event in wanted)


def address_name(address: str) -> str:
    """An address as it may be shown: what comes before ``://``."""
    return f"{address.partition('://')[0]}://..."


class Notifier:
    """Tells of jobs that ended, in a thread of its own. ``hear`` is told of each transition.

    What is to be told is in the ledger until it was taken: a daemon that is killed in between tells it after its next start, and what
    was taken a moment before the kill is told once more.

    Raises:
        SiteError: an address is none, or apprise is not installed.
        LedgerError: the ledger cannot be written.
    """

    def __init__(self, ledger: Ledger, addresses: Sequence[str], events: Sequence[Event], send: Send | None = None) -> None:
        # Addresses are secrets: the ledger knows them by these names.
        self._addresses = {f"{number} {address_name(address)}": address for number, address in enumerate(addresses, start=1)}
        self._ledger, self._events = ledger, set(events)
        self._send = send or sender(addresses)
        self._news, self._after = threading.Event(), 0
        self._letters: list[_Letter] = []
        self._complaints = Complaints(_log)
        self._folder = tempfile.TemporaryDirectory(prefix="ptyplugin-notices-")
        self.outcomes: Counter[str] = Counter({"sent": 0, "tried again": 0, "given up": 0})
        ledger.keep_untold(True)
        self._news.set()

    def hear(self, entry: Entry) -> None:
        """A job came into another state."""
        if entry.state in ("solved", "failed"):
            self._news.set()

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``; what is not sent then is sent after the next start."""
        with self._folder:
            while not stop.wait(_POLL_S):
                try:
                    self._work(stop)
                except LedgerError as error:
                    self._news.set()
                    # A letter that outlasted the stop finds the ledger closed.
                    if not stop.is_set():
                        self._complaints.say(str(error))

    def _work(self, stop: threading.Event) -> None:
        room = _MOST - len(self._letters)
        if self._news.is_set() and room > 0:
            self._news.clear()
            found = self._ledger.untold(self._after, room)
            if len(found) == room:
                self._news.set()
            for untold in found:
                self._after = untold.number
                self._write(untold)
        for letter in [letter for letter in self._letters if letter.due_s <= time.monotonic()]:
            if stop.is_set():
                return
            self._try(letter)

    def _write(self, untold: Untold) -> None:
        entry, outcome = untold.entry, outcome_of(untold.entry.result)
        names = [name for name in self._addresses if untold.remaining is None or name in untold.remaining]
        if entry.purpose == "live" or event_of(entry, outcome) not in self._events or not names:
            self._ledger.told(untold.number)
            return
        notice = notice_of(entry, outcome, Path(self._folder.name))
        self._letters += [_Letter(untold.number, name, notice, entry.changed_s) for name in names]

    def _try(self, letter: _Letter) -> None:
        if was_taken(self._send, self._addresses[letter.name], letter.notice):
            self.outcomes["sent"] += 1
            self._complaints.over()
        elif time.time() - letter.since_s > GIVE_UP_S:
            self._give_up(f"{letter.name} did not take it for a day")
        else:
            self.outcomes["tried again"] += 1
            self._complaints.say(f"{letter.name} does not take notifications: they are tried again, and jobs go on.")
            letter.due_s = time.monotonic() + letter.wait_s
            letter.wait_s = min(2 * letter.wait_s, LONGEST_WAIT_S)
            return
        self._letters.remove(letter)
        self._sweep(letter.notice.picture)
        self._ledger.told(letter.number, [other.name for other in self._letters if other.number == letter.number])

    def _give_up(self, why: str) -> None:
        self.outcomes["given up"] += 1
        self._complaints.say(f"a notification is given up: {why}.")

    def _sweep(self, picture: Path | None) -> None:
        if picture is not None and all(letter.notice.picture != picture for letter in self._letters):
            picture.unlink(missing_ok=True)


def event_of(entry: Entry, outcome: Mapping[str, Any]) -> Event:
    """What the end of a job is to people: a result whose verdict is ``failed`` is no image."""
    if entry.state == "failed" or outcome["verdict"] == "failed":
        return "failed"
    return "doubtful" if outcome["verdict"] == "doubtful" else "finished"


def notice_of(entry: Entry, outcome: Mapping[str, Any], folder: Path) -> Notice:
    """What is told of this job; its picture is made in ``folder``."""
    event = event_of(entry, outcome)
    scan = f"scan {entry.scan_id}" if entry.scan_id is not None else entry.source or entry.key
    lines = [entry.sentence] if entry.sentence else []
    lines += [f"error {outcome['error']:.4g}, verdict {outcome['verdict'] or 'none'}"] if outcome["error"] is not None else []
    lines += list(outcome["verdict_reasons"] or ())
    for name, value in (("job", entry.key), ("run", entry.run_uid), ("recipe", entry.recipe), ("result", entry.result)):
        lines += [f"{name}: {value}"] if value else []
    return Notice(event, f"ptyplugin: {scan} {event}", "\n".join(lines), _picture(entry, folder))


def _picture(entry: Entry, folder: Path) -> Path | None:
    if entry.result is None:
        return None
    # matplotlib is large and slow to start: only who wants pictures has it in memory.
    from ptyplugin.io.picture import save_png

    path = folder / f"{entry.key}.png"
    try:
        save_png(read_result(entry.result), path)
    except (PtypluginError, OSError, ValueError) as error:
        _log.warning("the notification about job %s has no picture: %s", entry.key, error)
        return None
    return path


def sender(addresses: Sequence[str]) -> Send:
    """What sends through apprise.

    Raises:
        SiteError: apprise is not installed, or an address is none.
    """
    try:
        import apprise
    except ImportError as error:
        raise SiteError(f"{NOTIFY_VARIABLE} needs the package apprise: pip install 'ptyplugin[notify]'.") from error
    # It may show addresses; what there is to say is said here.
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    ways: dict[str, Any] = {}
    for number, address in enumerate(addresses, start=1):
        ways[address] = apprise.Apprise()
        if not ways[address].add(address):
            raise SiteError(
                f"address {number} of {len(addresses)} in {NOTIFY_VARIABLE} ({address_name(address)}) is unknown to apprise: correct it."
            )

    def send(address: str, notice: Notice) -> bool:
        picture = None if notice.picture is None else str(notice.picture)
        return bool(ways[address].notify(body=notice.body, title=notice.title, notify_type=_KINDS[notice.event], attach=picture))

    return send


def was_taken(send: Send, address: str, notice: Notice) -> bool:
    """Whether ``send`` took it. A library for a hundred services can fail in ways that nobody has seen yet: that is no, and logged."""
    try:
        return send(address, notice)
    except Exception as error:
        _log.debug("a notification failed: %s", type(error).__name__, exc_info=True)
        return False
