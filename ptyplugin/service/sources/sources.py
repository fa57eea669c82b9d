"""All sources of a site, each in a thread of its own, and the desk that makes jobs of what they bring."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Self

from ptyplugin.jobs import Entry
from ptyplugin.model import (
    CatalogSweep,
    EigerStream,
    HttpSubmit,
    KafkaDocuments,
    PvaChannels,
    Site,
    SourceTable,
    TiledRuns,
    ZmqDocuments,
)
from ptyplugin.service.sources.desk import Desk
from ptyplugin.service.sources.eiger_frames import EigerFrames
from ptyplugin.service.sources.finished import Finished
from ptyplugin.service.sources.http_submit import HttpSource
from ptyplugin.service.sources.kafka_documents import KafkaSource
from ptyplugin.service.sources.profiles import LiveProfiles
from ptyplugin.service.sources.pva_frames import PvaFrames, channels_of
from ptyplugin.service.sources.source import Source
from ptyplugin.service.sources.state import SourceState
from ptyplugin.service.sources.submissions import Submissions
from ptyplugin.service.sources.sweeping import Sweep
from ptyplugin.service.sources.tiled_runs import TiledSource
from ptyplugin.service.sources.zmq_documents import ZmqSource

_log = logging.getLogger(__name__)

#: Seconds that the threads get to end, all together; what they did not come to is found again by a sweep.
END_S = 3.0


class Sources:
    """The sources that the site file names. A context manager: they run inside of it.

    Where documents may be lost on their way and the site has a catalog, it is swept too, whether the site file says so or not.

    Args:
        site: its ``source`` tables are made; its ledger must be there.
        stop: ends them early, before the context does.

    Raises:
        ProfileError: there is no such profile, or it is wrong.
        SiteError: a source lacks something: a package, a catalog, a token.
    """

    def __init__(self, site: Site, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()
        self._site, self._finished = site, Finished(site)
        self._desk = Desk(site, self._finished)
        self._profiles = LiveProfiles(name for table in site.source for name in table.profiles)
        self._sweeps = [self._sweep(table) for table in _sweeps_of(site)]
        made = [self._made(table) for table in site.source if not isinstance(table, CatalogSweep)]
        self.each: list[Source] = [*(source for several in made for source in several), *self._sweeps, *_recorders(site)]
        self._threads = [
            threading.Thread(target=source.run, args=(self._stop,), name=f"ptyplugin-{source.state.name}", daemon=True)
            for source in self.each
        ]
        if self.each:
            self._threads.append(threading.Thread(target=self._desk.run, args=(self._stop,), name="ptyplugin-desk", daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._desk.wake()
        end_s = time.monotonic() + END_S
        for thread in self._threads:
            thread.join(max(0.0, end_s - time.monotonic()))

    def hear(self, entry: Entry) -> None:
        """A job came into another state. Of a refusal that somebody wants to be tried again, the run is read from the catalog once more."""
        if entry.kind != "refusal" or entry.state != "cancelled" or entry.run_uid is None:
            return
        profiles = [profile for profile in self._profiles if profile.beamline == entry.beamline]
        if not profiles or not self.each or self._site.tiled_uri is None:
            _log.warning(
                "run %s cannot be read again here: that takes a catalog, and a source with a profile of beamline %s in the site file. "
                "By hand: ptyplugin reconstruct %s --profile FILE --publish",
                *(entry.run_uid, entry.beamline, entry.run_uid),
            )
            return
        self._finished.forget(entry.run_uid)
        self._desk.ring(entry.run_uid, profiles, self.each[0].state)

    def states(self) -> list[SourceState]:
        """How each source is."""
        return [source.state for source in self.each]

    def _made(self, table: SourceTable) -> Sequence[Source]:
        profiles = LiveProfiles(table.profiles)
        match table:
            case ZmqDocuments():
                return [ZmqSource(table, profiles, self._desk, self._ask_for_sweep)]
            case KafkaDocuments():
                return [KafkaSource(table, profiles, self._desk, self._ask_for_sweep)]
            case HttpSubmit():
                return [HttpSource(table, lambda source: Submissions(self._site, profiles, self._finished, source.state))]
            case TiledRuns():
                return [
                    TiledSource(beamline, profiles.of(beamline), self._site, self._desk, self._ask_for_sweep)
                    for beamline in dict.fromkeys(profile.beamline for profile in profiles)
                ]
            case EigerStream():
                return [EigerFrames(table, profiles, self._site)]
            case PvaChannels():
                return []
            case _:
                raise AssertionError(table)

    def _sweep(self, table: CatalogSweep) -> Sweep:
        return Sweep(table, LiveProfiles(table.profiles), self._site, self._desk, self._finished)

    def _ask_for_sweep(self) -> None:
        for sweep in self._sweeps:
            sweep.ask()


def _recorders(site: Site) -> list[Source]:
    """What records the channels of all profiles; nothing where none names one and nobody asked for it."""
    profiles = LiveProfiles(name for table in site.source for name in table.profiles)
    asked = any(isinstance(table, PvaChannels) for table in site.source)
    return [PvaFrames(profiles, site)] if asked or channels_of(profiles) else []


def _sweeps_of(site: Site) -> list[CatalogSweep]:
    """Those that the site file names; else one for all profiles whose documents may be lost."""
    named = [table for table in site.source if isinstance(table, CatalogSweep)]
    losing = [table for table in site.source if isinstance(table, ZmqDocuments | KafkaDocuments | TiledRuns)]
    if named or not losing:
        return named
    if site.tiled_uri is None:
        _log.warning("no catalog is named (tiled_uri in the site file): documents that are lost on their way cannot be had again.")
        return []
    return [CatalogSweep(kind="sweep", profiles=list(dict.fromkeys(name for table in losing for name in table.profiles)))]
