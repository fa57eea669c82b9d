"""The profiles of a source, as their files are now: a changed file is used by the next run, a broken one is not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

from ptyplugin.model import Profile, ProfileError
from ptyplugin.profiles import load_profile, profile_stamp
from ptyplugin.service.complaints import Complaints

_log = logging.getLogger(__name__)


class LiveProfiles(Sequence[Profile]):
    """The profiles of these names or paths. Each look at them reads the files that have changed.

    wanted: which of them are meant; all if absent

    Raises:
        ProfileError: there is no such profile, or it is wrong; later on that is only said, and the profile stays as it was.
    """

    def __init__(self, names: Iterable[str], wanted: Callable[[Profile], bool] | None = None) -> None:
        self._names, self._wanted = list(dict.fromkeys(names)), wanted or (lambda _: True)
        self._stamps = {name: profile_stamp(name) for name in self._names}
        self._profiles = {name: load_profile(name) for name in self._names}
        self._complaints, self._lock = Complaints(_log), threading.Lock()

    def of(self, beamline: str) -> LiveProfiles:
        """Those of this beamline."""
        return LiveProfiles(self._names, lambda profile: profile.beamline == beamline)

    def now(self) -> list[Profile]:
        """As the files are now."""
        with self._lock:
            for name in self._names:
                stamp = profile_stamp(name)
                if stamp != self._stamps[name]:
                    self._stamps[name] = stamp
                    self._read_again(name)
            return [profile for profile in self._profiles.values() if self._wanted(profile)]

    def __iter__(self) -> Iterator[Profile]:
        return iter(self.now())

    def __len__(self) -> int:
        return len(self.now())

    @overload
    def __getitem__(self, index: int) -> Profile: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Profile]: ...
    def __getitem__(self, index: int | slice) -> Profile | Sequence[Profile]:
        return self.now()[index]

    def _read_again(self, name: str) -> None:
        try:
            self._profiles[name] = load_profile(name)
        except ProfileError as error:
            self._complaints.say(f"{error} The profile stays as it was until the file is mended.")
        else:
            self._complaints.over()
            _log.info("profile %s has changed: it is used from the next run on", name)
