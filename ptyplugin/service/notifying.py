"""Notifications: a mail, or a line in a chat, when a job has ended. Jobs never wait for them."""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ptyplugin.io import read_result
from ptyplugin.io.outcome import outcome_of
from ptyplugin.jobs import Entry
from ptyplugin.model import PtypluginError, SiteError
from ptyplugin.model.redaction import NOTIFY_VARIABLE
from ptyplugin.service.complaints import Complaints

_log = logging.getLogger(__name__)

#: What is told; all of it unless the variable says less.
Event = Literal["finished", "doubtful", "failed"]
EVENTS_VARIABLE = "PTYPLUGIN_NOTIFY_ON"
#: Seconds before a notification that was not taken is sent again: from the first to the longest, doubled each time; when it is given up.
FIRST_WAIT_S, LONGEST_WAIT_S, GIVE_UP_S = 5.0, 600.0, 86400.0
#: Jobs that may wait to be told of.
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
    """A notice on its way to one address."""

    address: str
    notice: Notice
    due_s: float = 0.0
    wait_s: float = FIRST_WAIT_S
    since_s: float = field(default_factory=time.monotonic)


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

    Raises:
        SiteError: an address is none, or apprise is not installed.
    """

    def __init__(self, addresses: Sequence[str], events: Sequence[Event], send: Send | None = None) -> None:
        self._addresses, self._events = list(addresses), set(events)
        self._send = send or sender(self._addresses)
        self._ended: queue.Queue[Entry] = queue.Queue(_MOST)
        self._letters: list[_Letter] = []
        self._complaints = Complaints(_log)
        self._folder = tempfile.TemporaryDirectory(prefix="ptyplugin-notices-")
        self.outcomes: Counter[str] = Counter({"sent": 0, "tried again": 0, "given up": 0})

    def hear(self, entry: Entry) -> None:
        """A job came into another state."""
        if entry.state not in ("solved", "failed") or entry.purpose == "live":
            return
        try:
            self._ended.put_nowait(entry)
        except queue.Full:
            self._give_up(f"more than {_MOST} jobs wait to be told of")

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``; what is not sent then is not sent any more."""
        with self._folder:
            while not stop.is_set():
                self._take_one()
                for letter in [letter for letter in self._letters if letter.due_s <= time.monotonic()]:
                    if stop.is_set():
                        return
                    self._try(letter)

    def _take_one(self) -> None:
        try:
            entry = self._ended.get(timeout=_POLL_S)
        except queue.Empty:
            return
        outcome = outcome_of(entry.result)
        if event_of(entry, outcome) in self._events:
            notice = notice_of(entry, outcome, Path(self._folder.name))
            self._letters += [_Letter(address, notice) for address in self._addresses]
            del self._letters[: max(0, len(self._letters) - _MOST)]

    def _try(self, letter: _Letter) -> None:
        if was_taken(self._send, letter.address, letter.notice):
            self.outcomes["sent"] += 1
            self._complaints.over()
        elif time.monotonic() - letter.since_s > GIVE_UP_S:
            self._give_up(f"{address_name(letter.address)} did not take it for a day")
        else:
            self.outcomes["tried again"] += 1
            self._complaints.say(f"{address_name(letter.address)} does not take notifications: they are tried again, and jobs go on.")
            letter.due_s = time.monotonic() + letter.wait_s
            letter.wait_s = min(2 * letter.wait_s, LONGEST_WAIT_S)
            return
        self._letters.remove(letter)
        self._sweep(letter.notice.picture)

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
