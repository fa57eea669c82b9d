"""What a reconstruction will need and how it will be done, said before anything is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptyplugin.model import Geometry, Placement, Recipe, SolverError
from ptyplugin.solvers.algorithms import algorithm_of
from ptyplugin.solvers.batches import open_size
from ptyplugin.solvers.device_plan import DevicePlan, OnCard, Room, in_words, make_device_plan
from ptyplugin.solvers.growing import counts_dtype
from ptyplugin.solvers.plugins import Algorithm, KeepsWaves
from ptyplugin.solvers.prepare import CHUNK_BYTES
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.streaming import PIECES, block_frames
from ptyplugin.solvers.verbs import Verbs

#: The interpreter and its libraries, with compiled code and the smaller arrays.
PYTHON_BYTES = 320_000_000
#: The object, its copies and its sums while a sweep runs; and what each thread beyond the first adds to.
_CANVASES, _CANVASES_OF_THREAD = 4, 1.5
#: Copies of the object in the host's memory where a GPU computes.
_CANVASES_BESIDE_CARD = 2
#: Arrays like the waves of a batch that there are at the same time, and like a chunk of frames while it is prepared.
_WAVES_AT_ONCE, _CHUNKS_AT_ONCE = 2, 4
_READS_QUICKER = '{}: batches="compact" reads neighbours, which is quicker than to read frames from everywhere'


@dataclass(frozen=True, slots=True)
class Plan:
    """Need and choice; ``str(plan)`` says it in words. Bytes are of all ranks together, and what is needed at most.

    object_shape: (y, x), px
    waves: per frame: probe modes times object modes times sub-steps
    batch_frames: for each stage, its algorithm and how many frames a rank works on at once
    keeps_waves: whether exit waves of all frames are stored; else they are computed when they are needed
    recomputes_waves: whether they would be stored if they fitted
    streams: whether counts are read from where they lie whenever they are needed; else they are in memory
    counts_bytes: of all counts; counts_there_bytes: of those that are in memory at once
    canvas_bytes: the object, and what has its shape; work_bytes: the waves of a batch, or frames while they are prepared
    python_bytes: the interpreter and its libraries
    there_bytes: memory that there is
    hints: sentences on what would be quicker
    card: need and choice of each rank on a GPU; then the others are of the host alone
    """

    frames: int
    frame_shape: tuple[int, int]
    object_shape: tuple[int, int]
    waves: int
    ranks: int
    batch_frames: tuple[tuple[str, int], ...]
    keeps_waves: bool
    recomputes_waves: bool
    streams: bool
    counts_bytes: int
    counts_there_bytes: int
    waves_bytes: int
    canvas_bytes: int
    work_bytes: int
    python_bytes: int
    there_bytes: int
    hints: tuple[str, ...] = ()
    card: DevicePlan | None = None

    @property
    def needed_bytes(self) -> int:
        """All together."""
        return self.counts_there_bytes + self.waves_bytes + self.canvas_bytes + self.work_bytes + self.python_bytes

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            SolverError: more memory than there is; the message says what would need less.
        """
        if self.needed_bytes > self.there_bytes:
            rows, columns = self.frame_shape
            raise SolverError(
                f"{self.frames} frames of {rows} x {columns} px with {self.waves} waves each need about "
                f"{in_words(self.needed_bytes)} of memory, there are {in_words(self.there_bytes)}: {self._what_to_do()}."
            )
        if self.card:
            self.card.check(" + ".join(algorithm for algorithm, _ in self.batch_frames))

    def _what_to_do(self) -> str:
        stored = " + ".join(algorithm for algorithm, _ in self.batch_frames)
        if self.keeps_waves and self.needed_bytes - self.waves_bytes <= self.there_bytes:
            return (
                f"{in_words(self.waves_bytes)} are waves that a stage of {stored} stores; LSQML and ePIE store none, "
                "and AP without synchronise recomputes them"
            )
        if self.work_bytes > max(self.canvas_bytes, self.there_bytes // 2):
            return "use smaller batches (batch=...), crop the frames, or use fewer modes"
        return "crop the frames, use fewer modes, or fewer ranks"

    def __str__(self) -> str:
        waves = "stored" if self.keeps_waves else "computed when needed"
        waves = "waves recomputed, since they do not fit" if self.recomputes_waves else waves
        batches = ", ".join(f"{algorithm} {frames} frame(s) at once" for algorithm, frames in self.batch_frames)
        counts = f"streamed from disk, {in_words(self.counts_bytes)}" if self.streams else "in memory"
        parts = {
            "counts": self.counts_there_bytes,
            "waves": self.waves_bytes,
            "object": self.canvas_bytes,
            "work": self.work_bytes,
            "Python and libraries": self.python_bytes,
        }
        return "\n".join(
            [
                f"{self.frames} frames of {self.frame_shape[0]} x {self.frame_shape[1]} px on {self.ranks} rank(s), "
                f"object {self.object_shape[0]} x {self.object_shape[1]} px",
                f"{batches}; {self.waves} wave(s) per frame, {waves}; counts {counts}",
                f"memory: {in_words(self.needed_bytes)} of {in_words(self.there_bytes)} "
                f"({', '.join(f'{name} {in_words(size)}' for name, size in parts.items())})",
                *([str(self.card)] if self.card else []),
                *self.hints,
            ]
        )


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be reconstructed, as far as memory is concerned.

    stored: type of the counts as they are stored; waves: per frame; threads: of each rank
    """

    frames: int
    stored: np.dtype[Any]
    geometry: Geometry
    placement: Placement
    waves: int
    object_modes: int
    threads: int

    def object_bytes(self, dtype: np.dtype[Any]) -> int:
        """Of all modes of the object."""
        height, width = self.placement.object_shape
        return self.object_modes * height * width * dtype.itemsize


def make_plan(
    recipe: Recipe, task: Task, verbs: Verbs, ranks: Ranks, rank_bytes: int, streams: bool | None = None, room: Room | None = None
) -> Plan:
    """The plan for a recipe on so many frames, with so much memory for each rank.

    streams: whether counts are streamed, if that is decided already; else they are where it needs less memory than there is
    room: of the cards that the verbs compute on, if they do

    Raises:
        RecipeError: an unknown algorithm or option.
    """
    # The quickest first: a disk is slower than to transform waves once more.
    plans = [
        _plan(recipe, task, verbs, ranks, rank_bytes, from_disk, recomputes, room)
        for from_disk in ((False, True) if streams is None else (streams,))
        for recomputes in (False, True)
    ]
    fitting = (plan for plan in plans if plan.needed_bytes <= plan.there_bytes)
    return next(fitting, min(plans, key=lambda plan: plan.needed_bytes))


@dataclass(frozen=True, slots=True)
class _Stage:
    """A stage with the frames that a rank works on at once, and those whose waves lie in memory meanwhile."""

    name: str
    algorithm: Algorithm
    options: Any
    batch: int
    at_work: int
    hint: str


def _stages(recipe: Recipe, task: Task, block: int, share: int, streams: bool) -> Iterator[_Stage]:
    for stage in recipe.stages:
        algorithm, options = algorithm_of(stage)
        if algorithm.walks == "blocks":
            batch = min(block, share, block_frames(share, task.geometry.shape) if streams else share)
            # What is not cut into blocks has only one frame of each thread at work.
            yield _Stage(stage.algorithm, algorithm, options, batch, task.threads if block > share else batch, "")
        else:
            batch = min(options.batch or open_size(share), share)
            sparse = streams and algorithm.walks == "chosen batches" and options.batches != "compact"
            yield _Stage(stage.algorithm, algorithm, options, batch, batch, _READS_QUICKER.format(stage.algorithm) if sparse else "")


def _keeping(stages: list[_Stage]) -> KeepsWaves:
    """Whether any stage stores waves."""
    needed, wished = (any(stage.algorithm.stores_waves(stage.options, recomputes) for stage in stages) for recomputes in (True, False))
    return "where they fit" if wished and not needed else needed


def _card(recipe: Recipe, task: Task, block: int, share: int, frame_bytes: tuple[int, int], room: Room) -> DevicePlan:
    """frame_bytes: of the counts and of the waves of a frame"""
    stages = list(_stages(recipe, task, block, share, False))
    work = OnCard(
        frames=share,
        fixed_frames=max((stage.batch for stage in stages if stage.algorithm.walks != "blocks"), default=0),
        frame_counts_bytes=frame_bytes[0],
        frame_waves_bytes=frame_bytes[1],
        object_bytes=task.object_bytes(np.dtype(np.complex64)),
        keeps_waves=_keeping(stages),
    )
    return make_device_plan(room, block * frame_bytes[1], work)


def _plan(
    recipe: Recipe, task: Task, verbs: Verbs, ranks: Ranks, rank_bytes: int, streams: bool, recomputes: bool, room: Room | None
) -> Plan:
    """recomputes: whether waves that need not be stored are not; a card decides for itself"""
    rows, columns = task.geometry.shape
    share, count_bytes = -(-task.frames // ranks.size), rows * columns * counts_dtype(task.stored).itemsize
    wave_bytes = rows * columns * task.waves * verbs.dtype.itemsize
    block = verbs.batch_frames((rows, columns), task.waves)
    card = _card(recipe, task, block, share, (count_bytes, wave_bytes), room) if room else None
    stages = list(_stages(recipe, task, card.batch_bytes // wave_bytes if card else block, share, streams))
    keeps = _keeping(stages)
    recomputes = keeps == "where they fit" and (card.recomputes_waves if card else recomputes)
    stores = bool(keeps) and not recomputes
    canvases = _CANVASES_BESIDE_CARD if card else _CANVASES + _CANVASES_OF_THREAD * (task.threads - 1)
    work = 0 if card else max(stage.at_work * (_WAVES_AT_ONCE * wave_bytes + count_bytes) for stage in stages)
    reading = _CHUNKS_AT_ONCE * min(CHUNK_BYTES, share * count_bytes)
    return Plan(
        frames=task.frames,
        frame_shape=(rows, columns),
        object_shape=task.placement.object_shape,
        waves=task.waves,
        ranks=ranks.size,
        batch_frames=tuple((stage.name, stage.batch) for stage in stages),
        keeps_waves=stores,
        recomputes_waves=recomputes,
        streams=streams,
        counts_bytes=task.frames * count_bytes,
        counts_there_bytes=ranks.size * min(PIECES * block_frames(share, (rows, columns)), share) * count_bytes
        if streams
        else task.frames * count_bytes,
        waves_bytes=task.frames * wave_bytes if stores and not card else 0,
        canvas_bytes=int(ranks.size * canvases * task.object_bytes(verbs.dtype)),
        work_bytes=ranks.size * (work + reading if streams else max(work, reading)),
        python_bytes=ranks.size * PYTHON_BYTES,
        there_bytes=ranks.size * rank_bytes,
        hints=tuple(dict.fromkeys(stage.hint for stage in stages if stage.hint)),
        card=card,
    )
