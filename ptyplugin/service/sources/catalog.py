"""The catalog, as the sources ask it: one connection, made when needed, and nobody asks again at once while it is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import CatalogAway, CatalogError, FramesError, Profile, Site, TiledSource
from ptyplugin.service.sources.finished import NO_END

_Answer = TypeVar("_Answer")

#: Seconds to leave it alone when it is away: from the first to the longest, doubled each time.
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0


class Catalog:
    """The site's catalog for one thread."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._client: Any = None
        self._wait_s = self._away_until_s = 0.0
        self._away: CatalogAway | None = None

    @property
    def is_named(self) -> bool:
        """Whether the site has one."""
        return self._site.tiled_uri is not None

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.context.close()
            self._client = None

    def documents(self, run_uid: str, profiles: Sequence[Profile], unended: bool = False) -> list[tuple[str, dict[str, Any]]]:
        """The documents of a run, which has ended. ``unended``: or has not, and gets an end here.

        Raises:
            CatalogAway: it does not answer, or did not a moment ago.
            CatalogError: it has no such run, or not yet its end.
        """
        from ptyplugin.catalog import run_documents, run_with_uid

        def ask(client: Any) -> list[tuple[str, dict[str, Any]]]:
            for beamline in dict.fromkeys(profile.beamline for profile in profiles):
                run = run_with_uid(client, self._site, beamline, run_uid)
                if run is None:
                    continue
                has_ended = bool(run.metadata.get("stop"))
                if not (has_ended or unended):
                    raise CatalogError(f"run {run_uid} has no stop document in the catalog yet.")
                return [*run_documents(run), *([] if has_ended else [_end_of(run_uid)])]
            raise CatalogError(f"the catalog has no run {run_uid}.")

        return self.ask(ask)

    def with_results(self, profiles: Sequence[Profile], run_uids: Iterable[str]) -> set[str]:
        """Those of these runs that have a result in the catalog.

        Raises:
            CatalogError: it is away or refuses.
        """
        from ptyplugin.catalog import runs_with_results

        asked = list(run_uids)
        beamlines = dict.fromkeys(profile.beamline for profile in profiles)
        return self.ask(lambda client: set().union(*(runs_with_results(client, self._site, each, asked) for each in beamlines)))

    def samples(self, beamline: str, source: TiledSource, start: int, stop: int) -> NDArray[np.float64]:
        """Positions that are an array of a run; see ptyplugin.catalog.array_samples.

        Raises:
            CatalogAway: it does not answer, or did not a moment ago.
            FramesError: it does not give them, now or at all.
        """
        from ptyplugin.catalog import array_samples

        try:
            return self.ask(lambda client: array_samples(client, self._site, beamline, source, start, stop))
        except CatalogAway:
            raise
        except CatalogError as error:
            raise FramesError(str(error)) from error

    def ask(self, question: Callable[[Any], _Answer]) -> _Answer:
        """Ask with a client for the root of the catalog.

        Raises:
            CatalogError: it refuses.
            CatalogAway: it does not answer, or did not a moment ago.
        """
        # Importing the client takes a second, which the daemon's start need not wait for.
        from ptyplugin.catalog import connect

        if self._away is not None and time.monotonic() < self._away_until_s:
            raise self._away
        try:
            self._client = connect(self._site) if self._client is None else self._client
            answer = question(self._client)
        except CatalogAway as error:
            self._wait_s = min(max(FIRST_WAIT_S, 2 * self._wait_s), LONGEST_WAIT_S)
            self._away, self._away_until_s = error, time.monotonic() + self._wait_s
            self.close()
            raise
        except CatalogError:
            raise
        except BaseException:
            self.close()
            raise
        self._wait_s, self._away = 0.0, None
        return answer


def _end_of(run_uid: str) -> tuple[str, dict[str, Any]]:
    """The end of a run that has none; what the reason says comes into the notes of its job."""
    stop = {"uid": f"{run_uid}-unended", "run_start": run_uid, "time": time.time(), "exit_status": "abort", "reason": NO_END}
    return "stop", {**stop, "num_events": {}}
