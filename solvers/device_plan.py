"""What a reconstruction needs on a GPU, and how it is made to fit: said before anything is allocated there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ptyplugin.model import SolverError
from ptyplugin.solvers.plugins import KeepsWaves

#: Share of the free memory that is left: other programs, fragments, plans of transforms.
_RESERVE = 0.1
#: Canvases of the object that there are at the same time: it and its start, sums and what ML remembers, which is most of all.
_CANVASES = 10
#: Arrays like the waves of a batch that there are at the same time: waves before and after, probes moved for two passes, transforms.
_WAVES_AT_ONCE = 8
#: Where counts are streamed: those of the batch in use, and those that come next.
_BATCHES_OF_COUNTS = 2
#: Waves of a batch, bytes: with less, launches take so much longer than their work that counts rather come from the host.
_LITTLE = 2**22


@dataclass(frozen=True, slots=True)
class Room:
    """Memory of a card for one rank: how many ranks share the card, and what is free for this one.

    half_waves: whether waves that are stored are in half precision
    """

    name: str
    sharing: int
    free_bytes: int
    half_waves: bool = False


@dataclass(frozen=True, slots=True)
class OnCard:
    """What a rank has to do on its card.

    frames: of this rank; fixed_frames: the largest batch that a stage has by its options, 0 if none has
    frame_counts_bytes, frame_waves_bytes: of one frame; object_bytes: of all its modes
    keeps_waves: whether waves of all frames are stored; "where they fit": or recomputed
    """

    frames: int
    fixed_frames: int
    frame_counts_bytes: int
    frame_waves_bytes: int
    object_bytes: int
    keeps_waves: KeepsWaves


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """Need and choice of one rank on its card; ``str(plan)`` says it in words. Bytes are what is needed at most.

    counts_bytes: of counts that stay on the card; coming_bytes: of those that come from the host's memory, batch by batch, if not all stay
    batch_bytes: of the waves that a block has
    there_bytes: of the card's free memory, this rank's share
    recomputes_waves: whether waves that could be stored are recomputed
    """

    name: str
    sharing: int
    batch_bytes: int
    counts_bytes: int
    coming_bytes: int
    waves_bytes: int
    canvas_bytes: int
    work_bytes: int
    there_bytes: int
    recomputes_waves: bool = False

    @property
    def needed_bytes(self) -> int:
        """All together."""
        return self.counts_bytes + self.coming_bytes + self.waves_bytes + self.canvas_bytes + self.work_bytes

    def check(self, stored: str) -> None:
        """Refuse what cannot be done. ``stored``: what stores waves, in words.

        Raises:
            SolverError: more memory than the card has; the message says what would need less.
        """
        if self.needed_bytes > self.there_bytes:
            raise SolverError(
                f"a rank needs about {in_words(self.needed_bytes)} on its card ({self._parts()}), and has {in_words(self.there_bytes)} of "
                f"{self.name}{self._shared()}: {self._what_to_do(stored)}."
            )

    def _what_to_do(self, stored: str) -> str:
        if self.waves_bytes and self.needed_bytes - self.waves_bytes <= self.there_bytes:
            more = -(-self.waves_bytes // (self.there_bytes - self.needed_bytes + self.waves_bytes))
            return (
                f"{in_words(self.waves_bytes)} are waves that a stage of {stored} stores; LSQML, ML and ePIE store none, {more} times as "
                "many cards have room for them, and device cpu for what the machine's memory holds; AP without synchronise recomputes them"
            )
        if self.canvas_bytes > self.there_bytes // 2:
            return "crop the frames, use fewer object modes, or device cpu"
        return "use smaller batches (batch=...), fewer modes, or device cpu"

    def _parts(self) -> str:
        parts = {
            "counts": self.counts_bytes + self.coming_bytes,
            "waves": self.waves_bytes,
            "object": self.canvas_bytes,
            "work": self.work_bytes,
        }
        return ", ".join(f"{name} {in_words(size)}" for name, size in parts.items())

    def _shared(self) -> str:
        return f", which {self.sharing} ranks share" if self.sharing > 1 else ""

    def __str__(self) -> str:
        some = "some " if self.counts_bytes else ""
        counts = f"{some}counts come from the host's memory, batch by batch" if self.coming_bytes else "counts on the card"
        memory = f"{in_words(self.needed_bytes)} of {in_words(self.there_bytes)} ({self._parts()})"
        return f"each rank on {self.name}{self._shared()}: {memory}; {counts}"


def make_device_plan(room: Room, batch_bytes: int, work: OnCard) -> DevicePlan:
    """The quickest way that fits: counts that stay on the card, if need be with smaller batches, then without the waves that need not be
    stored; else as many counts as there is room for.

    batch_bytes: of waves that a block should have
    """
    every = work.frames * work.frame_counts_bytes
    ways = (True, False) if work.keeps_waves == "where they fit" else (work.keeps_waves,)
    for stores_waves in ways:
        plans = list(_by_batch(room, batch_bytes, work, stores_waves))
        for plan in plans:
            if plan.batch_bytes >= min(_LITTLE, batch_bytes) and _left(plan) >= every:
                return replace(plan, counts_bytes=every)
    for plan in plans:
        coming = _BATCHES_OF_COUNTS * plan.work_bytes // (_WAVES_AT_ONCE * work.frame_waves_bytes) * work.frame_counts_bytes
        if _left(plan) >= every:
            return replace(plan, counts_bytes=every)
        if _left(plan) >= coming:
            return replace(plan, counts_bytes=_left(plan) - coming, coming_bytes=coming)
    return replace(plan, coming_bytes=coming)


def _left(plan: DevicePlan) -> int:
    return plan.there_bytes - plan.needed_bytes


def _by_batch(room: Room, batch_bytes: int, work: OnCard, stores_waves: bool) -> Iterator[DevicePlan]:
    """Without counts: from the largest batches to those of one frame."""
    one = work.frame_waves_bytes
    size = max(batch_bytes, one)
    while size >= one:
        frames = max(work.fixed_frames, min(size // one, work.frames))
        yield DevicePlan(
            name=room.name,
            sharing=room.sharing,
            batch_bytes=size,
            counts_bytes=0,
            coming_bytes=0,
            waves_bytes=work.frames * one // (2 if room.half_waves else 1) if stores_waves else 0,
            canvas_bytes=_CANVASES * work.object_bytes,
            work_bytes=_WAVES_AT_ONCE * frames * one,
            there_bytes=int((1 - _RESERVE) * room.free_bytes),
            recomputes_waves=work.keeps_waves == "where they fit" and not stores_waves,
        )
        size //= 2


def in_words(size_bytes: int) -> str:
    """A size of memory."""
    return f"{size_bytes / 1e9:.3g} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.3g} MB"
