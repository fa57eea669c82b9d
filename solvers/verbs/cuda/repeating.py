"""Sweeps that are recorded once and then done again, without Python: a CUDA graph each."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from ptyplugin.solvers.batches import Batches
from ptyplugin.solvers.verbs import DeviceScalar
from ptyplugin.solvers.verbs.cuda.base import Base
from ptyplugin.solvers.verbs.cuda.device import Array, Replay
from ptyplugin.solvers.verbs.cuda.placing import DeviceCounts
from ptyplugin.solvers.verbs.cuda.scalars import CudaScalar

#: Recordings that are kept: each has memory of its own.
_KEPT = 2


@dataclass(slots=True)
class Recording:
    """What does a sweep again, and gives where its number lies; nothing yet where the sweep has been done only once.

    refused: it cannot be recorded
    """

    replay: Replay | None = None
    refused: bool = False


class RepeatVerbs(Base):
    """See ptyplugin.solvers.verbs.Verbs for the equations.

    The first time a sweep is done as it is asked for, which leaves all the memory that it needs in place; the second time it is recorded.
    """

    #: Whether sweeps are recorded at all.
    records = True
    _recordings: dict[Hashable, Recording]

    def repeat(self, key: Hashable, batches: Batches, sweep: Callable[[], DeviceScalar]) -> DeviceScalar:
        whole = self._whole_key(key, batches)
        if whole is None:
            return sweep()
        recording = self._recordings.pop(whole, None)
        self._recordings[whole] = recording or Recording()
        while len(self._recordings) > _KEPT:
            self._recordings.pop(next(iter(self._recordings)))
        if recording is None or recording.refused:
            return sweep()
        total = self._repeated(recording, sweep)
        return sweep() if total is None else CudaScalar(self.device, (), self._settle, total)

    def _repeated(self, recording: Recording, sweep: Callable[[], DeviceScalar]) -> Array | None:
        """What the sweep gives, recorded now or done again; None: it cannot be recorded, and has not been done."""
        self._forget()
        try:
            if recording.replay is not None:
                total: Array = recording.replay()
                return total
            recorded = self.device.record(lambda: _number_of(sweep()))
            recording.replay, given = recorded or (None, None)
            recording.refused = recorded is None
            return given
        finally:
            self._forget()  # arrays have changed that nobody has seen written, or have not, though they were seen

    def _whole_key(self, key: Hashable, batches: Batches) -> Hashable:
        """``key`` and all else that decides which kernels are launched on which memory; None: the sweep cannot be recorded.

        The tables are brought up to date, since nothing comes from the host while a sweep is done again.
        """
        counts: Any = batches.frames.counts
        if not self.records or not isinstance(counts, DeviceCounts) or not counts.all_resident:
            return None
        self._settle()
        tables = self._placing.tables_of(batches.frames)
        places: int | None = tables.places
        if batches.order is not None:
            tables.draw(batches.order)
            places = None
        return key, tables, tables.kind, batches.size, batches.number, places

    def forget_recordings(self) -> None:
        """Record sweeps anew: the arrays that they worked on are not those any more."""
        self._recordings.clear()


def _number_of(scalar: DeviceScalar) -> Array:
    total: Array = scalar.array
    return total
