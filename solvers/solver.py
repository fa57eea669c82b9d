"""Solver: a reconstruction, one iteration at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import (
    DeviceError,
    DeviceName,
    Frames,
    Geometry,
    Preparation,
    Progress,
    PtypluginError,
    Recipe,
    RecipeError,
    Reconstruction,
    Scan,
    ScanError,
    Snapshot,
    SolverError,
    Subpixel,
)
from ptyplugin.solvers.admitting import HostCounts, admit_frames, once_more
from ptyplugin.solvers.algorithms import check_recipe
from ptyplugin.solvers.batches import RankFrames
from ptyplugin.solvers.beginning import begin_from, check_modes, check_probe, lattice_of, margin_px, names_of, start_state, way_of
from ptyplugin.solvers.believing import BrokenFrames
from ptyplugin.solvers.checkpoint import Checkpoint, digest_of, put_back, taken, task_of, why_not
from ptyplugin.solvers.detector_model import with_monitor
from ptyplugin.solvers.device_ranks import ranks_for
from ptyplugin.solvers.devices import Choice, choose
from ptyplugin.solvers.driver import Card
from ptyplugin.solvers.fitting import hold_frames
from ptyplugin.solvers.further import read_further
from ptyplugin.solvers.held_out import SHARE, check_share, held_out_last
from ptyplugin.solvers.measured import Manner, Measured, check_longer, measure
from ptyplugin.solvers.memory import memory_of_rank, room_on_card
from ptyplugin.solvers.modes import probe_of, with_modes
from ptyplugin.solvers.outcome import recipe_done, reconstruction_of, snapshot_of
from ptyplugin.solvers.plan import Plan, Task, make_plan
from ptyplugin.solvers.positions import with_positions
from ptyplugin.solvers.prepare import Known, prepare
from ptyplugin.solvers.ranks import OneRank, Ranks, agreed, failing_together
from ptyplugin.solvers.run import steps
from ptyplugin.solvers.start import probe_from_data
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs.choice import Precision, VerbsChoice, verbs_of, verbs_on
from ptyplugin.solvers.verbs.cpu_fft import FftName
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs
from ptyplugin.solvers.way import Walk, model_errors

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Begun:
    """What there is once the frames have been read.

    known: what they have shown; counts: on the host, of those that are fitted, and of those held out
    first_frames: how many they were at first, of ``first_given``; portions: how often further ones were admitted
    """

    state: State
    way: Walk
    steps: Generator[Progress]
    known: Known
    counts: HostCounts
    first_frames: int
    first_given: int
    portions: int = 0
    ended: bool = False

    def go_on(self) -> None:
        """Have the next iteration be one of what ``way`` says now."""
        self.steps.close()
        self.steps, self.ended = steps(self.state, self.way), False


class Solver:
    """A reconstruction that goes on by one iteration each time it is asked for the next::

        solver = Solver(frames, scan, geometry, recipe)
        print(solver.plan())
        for progress in solver:
            show(solver.object, solver.probe)

    To pause is to stop asking; the next ``for`` goes on. Stages that have not begun may be changed meanwhile (``recipe``). With several
    ranks, all of them do all of this together. Frames are read by the first iteration.

    Args:
        frames: one frame per position of ``scan``, in its order.
        scan: positions; sub-steps of a fly scan add incoherently.
        geometry: of the frames after ``preparation``.
        preparation: crop, mask, orientation.
        recipe: what to run.
        probe_modes, object_modes: modes of the probe and of the object that add incoherently.
        subpixel: "probe" moves the probe by what rounding a position to pixels leaves over; "none" leaves it out.
        seed: fixes the order of frames where it is random: the same seed on as many ranks gives the same bits.
        start_probe: (y, x) or (mode, y, x) in the object's orientation and pixel; from the frames if None.
        start: object and probe of an earlier reconstruction of the same sample, to go on from instead.
        ranks: OneRank() if None.
        on_progress: called on rank 0 after each iteration.
        cancelled: asked on every rank after each iteration; True on any rank stops all.
        job_key: passed on in Progress.
        precision: complex64, or complex128 (then of the result too, and by the reference verbs); "half": complex64, but the waves that
            DM, RAAR and AP store on a GPU are float16, which costs 0.0005 of the waves and spares half of their memory (record 0007).
        device: "gpu", "cpu", or "auto": a GPU if one can be used; ``device_used`` says which, or why none.
        verbs: "cpu", or "reference": NumPy, several times slower, the judge. Or a function from the geometry to verbs, in whose precision
            all is done then. None: those of the device.
        fft: which library transforms for "cpu"; None: pyFFTW where it is installed, whose results differ in the last digits from process
            to process, else SciPy.
        memory_bytes: what all ranks together may use, interpreters included; None: what this machine gives.
        held_out: share of the frames that the fit never sees, for ``held_out_error``; none of fewer than 50 frames.

    Raises:
        RecipeError: an unknown algorithm or option.
        ScanError: positions and frames do not match.
        SolverError: it does not fit into memory.
        DeviceError: a GPU was asked for, and there is none to be used.
    """

    def __init__(
        self,
        frames: Frames,
        scan: Scan,
        geometry: Geometry,
        recipe: Recipe,
        *,
        preparation: Preparation | None = None,
        probe_modes: int = 1,
        object_modes: int = 1,
        subpixel: Subpixel = "probe",
        seed: int = 0,
        start_probe: NDArray[Any] | None = None,
        start: Snapshot | None = None,
        ranks: Ranks | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        job_key: str = "",
        precision: Precision = "single",
        device: DeviceName = "auto",
        verbs: VerbsChoice | None = None,
        fft: FftName | None = None,
        memory_bytes: int | None = None,
        held_out: float = SHARE,
    ) -> None:
        self._geometry, self._recipe = geometry, recipe
        self._preparation = preparation or Preparation()
        self._ranks = ranks or OneRank()
        self._start, self._start_probe = start, start.probe if start else start_probe
        self._probe_modes, self._seed, self._job_key = probe_modes, seed, job_key
        self._object_modes, self._on_progress, self._cancelled = object_modes, on_progress, cancelled
        self._subpixel: Subpixel = subpixel
        self._begun: Begun | None = None
        self._streams: bool | None = None
        self._checkpoint: Checkpoint | None = None
        with failing_together(self._ranks):
            check_modes(probe_modes, object_modes)
            check_share(held_out)
            lattice = lattice_of(start, geometry) if start else None
            manner = Manner(geometry, subpixel, held_out, self._ranks.size, lattice)
            self._measured = measure(frames, scan, manner, margin_px(recipe))
            self._notes = list[str]()
            self._device = self._chosen(device, precision, verbs)
            verbs = verbs or (verbs_on(self._device.device, precision == "half") if self._device.device else "cpu")
            self._verbs = verbs_of(verbs, geometry, precision, _threads(self._ranks), fft)
            self._ranks = ranks_for(self._verbs, self._ranks)
            self._said = {"subpixel": subpixel} | names_of(self._verbs, verbs)
            self._rank_bytes = memory_of_rank(self._ranks, memory_bytes)
            self._room = room_on_card(self._verbs, self._ranks, self._device.sharing)
            said = (probe_modes, object_modes, seed, held_out, self._said, self._preparation, geometry)
            self._input = digest_of(*said, self._start_probe, *((start.object, start.origin_m) if start else ()))
            self._check(recipe)

    @property
    def device_used(self) -> str:
        """What this rank computes on, in words, with the reason why it is the processor where it might have been a GPU."""
        return self._room.name if self._room and not self._device.card else str(self._device)

    def plan(self) -> Plan:
        """Need and choice, before anything is allocated; ``print(solver.plan())`` says it in words."""
        return self._plan_of(self._recipe)

    @property
    def recipe(self) -> Recipe:
        """What is done. Stages that have not begun may be replaced, left out or added; by a Recipe or its text.

        Raises:
            RecipeError: an unknown algorithm or option, or a change of a stage that has begun.
            SolverError: it does not fit into memory.
        """
        return self._recipe

    @recipe.setter
    def recipe(self, recipe: Recipe | str) -> None:
        recipe = Recipe.parse(recipe) if isinstance(recipe, str) else recipe
        begun = self._begun.way.begun if self._begun else 0
        if recipe.stages[:begun] != self._recipe.stages[:begun]:
            past = " + ".join(map(str, self._recipe.stages[:begun]))
            raise RecipeError(f"the recipe {recipe} changes what has begun: let it start with {past}, and change what comes after that.")
        plan = self._check(recipe)
        self._recipe = recipe
        if not self._begun:
            self._measured = self._measured.with_margin(margin_px(recipe))
        else:
            # A stage that was begun again has safer steps than the recipe says.
            self._begun.way.recomputes_waves |= plan.recomputes_waves
            self._begun.way.stages = (*self._begun.way.stages[:begun], *recipe.stages[begun:])
            if self._begun.ended:
                self._begun.go_on()

    def __iter__(self) -> Iterator[Progress]:
        return self

    def __next__(self) -> Progress:
        """Do one iteration.

        Raises:
            FramesError, GeometryError: frames that cannot be read, or of another shape.
            Cancelled: ``cancelled`` said so on any rank.
            SolverError: it diverged, or another rank failed (with that rank's sentence).
        """
        with failing_together(self._ranks):
            begun = self._begun = self._begun or self._begin()
            event = next(begun.steps, None)
        if event is None:
            begun.ended = True
            raise StopIteration
        return event

    @property
    def object(self) -> NDArray[Any]:
        """(object mode, y, x) complex, as it is now; a copy.

        Raises:
            SolverError: no iteration has been done.
        """
        return self._verbs.host(self._there().state.object).copy()

    @property
    def probe(self) -> NDArray[Any]:
        """(probe mode, y, x) complex, as it is now: orthogonal modes, the strongest first, or those given if all stages keep them; a copy.

        Raises:
            SolverError: no iteration has been done.
        """
        begun = self._there()
        return probe_of(begun.state, begun.way)

    def admit(self, frames: Frames, scan: Scan) -> None:
        """Go on with more frames, from the next iteration on; all ranks call it together, with the same::

            solver = Solver(first_frames, first_scan, geometry, "DM(30)")
            for progress in solver:
                if there_are_more():
                    solver.admit(*all_there_are())

        Object, probe, positions and waves stay; the object grows on all sides as it has to; each rank keeps the frames that it has. Only
        new frames are read. Afterwards all iterations of the recipe are still to be done; a first stage that has not ended goes on
        without beginning anew. Frames held out stay so, and all new ones are fitted; where no monitor has seen them, they have the mean
        intensity. Those that are broken, or lie far from all others, are left out, the latter until others come near them. A pixel that
        is bad in a new frame is masked in all.

        Args:
            frames, scan: all that there is now: first what there was, with its frame ids and positions, then what is new. If counts are
                streamed, they are read whenever they are needed, as at first.

        Raises:
            ScanError, SolverError: they do not begin with what there was, or do not fit into memory. As after a FramesError, everything
                is as before, on all ranks, and can go on.
            FramesError: new frames cannot be read on some rank, or most frames are broken.
            DeviceMemoryError: they do not fit on the device.
        """
        with failing_together(self._ranks, alike=PtypluginError):
            if self._begun is None:
                self._measured = agreed(self._ranks, lambda: self._longer(frames, scan), SolverError, ScanError)
                return
            begun, ranks = self._begun, self._ranks
            measured, plan = agreed(ranks, lambda: self._planned(frames, scan), SolverError, ScanError)
            streams = bool(ranks.largest(int(plan.streams)))
            how = (begun.known, self._preparation, begun.counts, begun.first_frames, streams, ranks)
            read = read_further(self._measured, measured, *how)
        with failing_together(self._ranks):
            _, self._measured, begun.known = read
            if read.admission is not None:
                self._streams = streams
                self._fit_the_card()
                begun.way.recomputes_waves |= plan.recomputes_waves
                begun.counts = admit_frames(begun.state, begun.way, read.admission, begun.counts, self._recipe)
                begun.portions += 1
                begun.go_on()

    def go_on(self) -> None:
        """Have all iterations of the recipe done once more, from what there is; all ranks call it together.

        As after ``admit``: a first stage that has not ended goes on without beginning anew.

        Raises:
            SolverError: no iteration has been done.
        """
        begun = self._there()
        once_more(begun.way, self._recipe)
        begun.go_on()

    def snapshot(self) -> Snapshot | None:
        """The image as it is now, on rank 0, at the cost of copying it; None on the others, which need not call it.

        ``errors`` are the newest of each name since the last frames came.

        Raises:
            SolverError: no iteration has been done.
        """
        begun = self._there()
        if self._ranks.rank:
            return None
        return snapshot_of(begun.state, begun.way, self._measured)

    def result(self) -> Reconstruction | None:
        """What there is so far as a Reconstruction, on rank 0; None on the others. All ranks call it together.

        Raises:
            SolverError: no iteration has been done, or it diverged.
        """
        begun = self._there()
        with failing_together(self._ranks):
            way, state = begun.way, begun.state
            last = way.progress[-1].errors
            errors = last if "error" in last and way.since < len(way.progress) else model_errors(state, way)
            done = str(self._recipe) if begun.portions else recipe_done(self._recipe, len(way.progress))
            said = {"recipe": done, "seed": self._seed, "ranks": self._ranks.size}
            notes = [*self._measured.left_out(begun.first_given), *self._notes, *way.refitted]
            said |= {"probe_modes": self._probe_modes, "object_modes": self._object_modes, "notes": notes}
            said |= {"admitted": {"portions": begun.portions, "first_frames": begun.first_frames}} if begun.portions else {}
            said |= {"device": self.device_used}
            said |= {"resumed": list(way.resumed)} if way.resumed else {}
            made = reconstruction_of(state, errors, self._measured.scan, self._measured.placement, self._geometry, way, said | self._said)
            made = with_positions(with_modes(made, state, way), state, way)
        return made if self._ranks.rank == 0 else None

    def checkpoint(self) -> Checkpoint:
        """All that this rank needs to go on from here in another process; all ranks call it together.

        Raises:
            SolverError: no iteration has been done, or frames were admitted: then there is ``snapshot``.
        """
        begun = self._there()
        with failing_together(self._ranks):
            if begun.portions:
                raise SolverError("no checkpoint is made of what frames were admitted to: take its snapshot, and begin from that.")
            return taken(begun.state, begun.way, self._task(), digest_of(self._measured.scan.frame_ids))

    def resume(self, checkpoint: Checkpoint) -> None:
        """Have the first iteration be the one after ``checkpoint``; all ranks call it together, with their own.

        With SciPy's FFT and as many ranks and threads of the same processor as before, all bits are those of a reconstruction that
        was never interrupted. What began again because it diverged, after it was resumed, begins at the checkpoint.

        Raises:
            SolverError: a reconstruction of something else, or one that has begun.
        """
        with failing_together(self._ranks):
            refusal = self.refuses(checkpoint)
            if refusal:
                raise SolverError(refusal)
        self._checkpoint = checkpoint

    def refuses(self, checkpoint: Checkpoint) -> str:
        """Why this rank cannot resume from ``checkpoint``, in a sentence; nothing if it can."""
        if self._begun is not None:
            return "the reconstruction has begun: resume from a checkpoint before its first iteration."
        return why_not(checkpoint, self._task())

    def _task(self) -> dict[str, Any]:
        digest = digest_of(self._input, self._measured.given[1].positions_m)
        return task_of(self._job_key, self._recipe, self._said["verbs"], self._ranks.rank, self._ranks.size, digest)

    def _there(self) -> Begun:
        if self._begun is None or not self._begun.way.progress:
            raise SolverError("there is no object, probe or result before the first iteration: ask for it inside the loop, or after it.")
        return self._begun

    def _check(self, recipe: Recipe) -> Plan:
        check_recipe(recipe)
        check_probe(recipe, self._start_probe, self._probe_modes, self._geometry)
        plan = self._plan_of(recipe)
        _LOG.info("%s", plan)
        plan.check()
        return plan

    def _plan_of(self, recipe: Recipe, measured: Measured | None = None) -> Plan:
        """``measured``: what there is, if None. What was in memory may be streamed when more frames come, but not the other way round."""
        there = measured or self._measured
        waves = self._probe_modes * self._object_modes * there.placement.corners.shape[1]
        task = Task(len(there.scan), there.frames.dtype, self._geometry, there.placement, waves, self._object_modes, _threads(self._ranks))
        streams = self._streams if measured is None else self._streams or None
        return make_plan(recipe, task, self._verbs, self._ranks, self._rank_bytes, streams, self._room)

    def _begin(self) -> Begun:
        """Read and prepare the frames of this rank, find the start."""
        all_mine, fitted, known = self._prepared()
        self._streams = all_mine.are_stored
        measured, ranks = self._measured, self._ranks
        scan, placement = measured.scan, measured.placement
        all_mine = with_monitor(all_mine, scan.monitor)
        mine, unseen = all_mine.part(0, fitted), all_mine.part(fitted, len(all_mine))
        self._fit_the_card()
        way = way_of(mine, unseen, len(scan) - len(measured.held_out), self._verbs, ranks)
        way.seed, way.job_key, way.on_progress, way.cancelled = self._seed, self._job_key, self._on_progress, self._cancelled
        way.stages, way.recomputes_waves = self._recipe.stages, self.plan().recomputes_waves
        way.said, way.rounds = measured.said_px(all_mine.numbers), self._subpixel == "none"
        if self._checkpoint and self._checkpoint.numbers["frames"] != digest_of(scan.frame_ids):
            self._notes.append("It began again: other frames are broken now than at the checkpoint.")
            _LOG.warning("%s", self._notes[-1])
            self._checkpoint = None
        # What a checkpoint has need not be found; its probe takes the place of this one.
        start = np.ones(mine.good.shape) if self._checkpoint else self._start_probe
        if start is None:
            start = self._probe_from(mine)
        state = start_state(start, self._probe_modes, placement, mine, way, self._object_modes)
        if self._start and not self._checkpoint:
            begin_from(self._start, state, way, measured)
        hold_frames(way)
        if self._checkpoint:
            put_back(self._checkpoint, state, way)
            self._checkpoint = None
        return Begun(state, way, steps(state, way), known, (mine.counts, unseen.counts), len(scan), len(measured.given[1]))

    def _longer(self, frames: Frames, scan: Scan) -> Measured:
        """What there is to begin with if it is more than was said, and fits into memory."""
        check_longer(*self._measured.given, frames, scan)
        measured = measure(frames, scan, self._measured.manner, margin_px(self._recipe))
        self._plan_of(self._recipe, measured).check()
        return measured

    def _planned(self, frames: Frames, scan: Scan) -> tuple[Measured, Plan]:
        """What is measured then, and how it fits into memory, if it does."""
        measured = self._measured.grown(frames, scan, margin_px(self._recipe))
        plan = self._plan_of(self._recipe, measured)
        plan.check()
        return measured, plan

    def _chosen(self, device: DeviceName, precision: Precision, verbs: VerbsChoice | None) -> Choice:
        """The device; a GPU computes in single precision, and not with verbs that somebody has chosen."""
        if verbs is None and precision != "double":
            chosen = choose(device, self._ranks, self._take)
            if precision == "half" and not chosen.device:
                raise DeviceError(f"waves are stored in half precision on a GPU only, not on {chosen}: leave out precision.")
            self._notes += [chosen.slower] if chosen.slower else []
            return chosen
        if device == "gpu":
            raise DeviceError("a GPU computes in single precision and with verbs of its own: leave out precision and verbs, or device gpu.")
        return Choice()

    def _take(self, cards: Sequence[Card]) -> tuple[Card | None, str]:
        """Take the first of these cards that is free; None if none is, and who has them, in words. Here, nobody is asked."""
        return cards[0], ""

    def _fit_the_card(self) -> None:
        """Let the verbs use of the card what the plan says."""
        card = self.plan().card
        if card and isinstance(self._verbs, CudaVerbs) and not (self._begun and self._begun.way.refitted):
            self._verbs.batch_bytes, self._verbs.counts_bytes = card.batch_bytes, card.counts_bytes

    def _prepared(self) -> tuple[RankFrames, int, Known]:
        """This rank's frames, those held out behind the others, and how many the others are. Broken ones leave the scan."""
        ranks = self._ranks
        while True:
            measured = self._measured
            numbers, fitted = held_out_last(measured.numbers_of(ranks.rank), measured.held_out)
            streams = bool(ranks.largest(int(self.plan().streams)))  # where ranks have unlike numbers of threads, so are their plans
            how = (measured.placement, self._geometry, self._preparation, ranks, streams, self._notes.append)
            try:
                made, known = prepare(measured.frames, numbers, *how)
                return made, fitted, known
            except BrokenFrames as broken:  # on all ranks alike
                self._notes.append(str(broken))
                self._measured = measured.without(broken.numbers, margin_px(self._recipe))

    def _probe_from(self, mine: RankFrames) -> NDArray[Any]:
        """The start probe that the fitted frames suggest; among them, each has another number than in the scan."""
        seen = np.setdiff1d(np.arange(len(self._measured.scan)), self._measured.held_out)
        among = replace(mine, numbers=np.searchsorted(seen, mine.numbers))
        return probe_from_data(among, self._measured.placement.corners.mean(axis=1)[seen], self._geometry, self._seed, self._ranks)


def _threads(ranks: Ranks) -> int:
    """This rank's share of the processor's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // ranks.size)
