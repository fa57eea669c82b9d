"""Solver: a reconstruction, one iteration at a time."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import (
    DeviceError,
    DeviceName,
    Frames,
    Geometry,
    Placement,
    Preparation,
    Progress,
    Recipe,
    RecipeError,
    Reconstruction,
    Scan,
    ScanError,
    SolverError,
    Subpixel,
)
from ptyplugin.solvers.algorithms import check_recipe, refinements_of
from ptyplugin.solvers.batches import RankFrames, frames_of_rank
from ptyplugin.solvers.believing import BrokenFrames, all_but, strays, where
from ptyplugin.solvers.checkpoint import Checkpoint, digest_of, put_back, taken, task_of, why_not
from ptyplugin.solvers.detector_model import with_monitor
from ptyplugin.solvers.device_ranks import ranks_for
from ptyplugin.solvers.devices import Choice, choose
from ptyplugin.solvers.driver import Card
from ptyplugin.solvers.fitting import hold_frames
from ptyplugin.solvers.held_out import SHARE, check_share, frames_to_hold_out, held_out_last
from ptyplugin.solvers.memory import memory_of_rank, room_on_card
from ptyplugin.solvers.modes import probe_of, with_modes
from ptyplugin.solvers.outcome import reconstruction_of
from ptyplugin.solvers.plan import Plan, Task, make_plan
from ptyplugin.solvers.positions import with_positions
from ptyplugin.solvers.prepare import prepare
from ptyplugin.solvers.ranks import OneRank, Ranks, failing_together
from ptyplugin.solvers.run import steps
from ptyplugin.solvers.start import probe_from_data
from ptyplugin.solvers.state import State, given_probe, start_object, window_of
from ptyplugin.solvers.verbs import Verbs
from ptyplugin.solvers.verbs.choice import Precision, VerbsChoice, verbs_of, verbs_on
from ptyplugin.solvers.verbs.cpu_fft import FftName
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs
from ptyplugin.solvers.way import Walk, model_errors

_LOG = logging.getLogger(__name__)

#: A scan on a grid of pixels whose positions miss it by no more than this is on the grid.
_SMALLEST_REST_PX = 0.01
#: Pixels of the object around all frames.
_MARGIN_PX = 4


@dataclass(slots=True)
class Begun:
    """What there is once the frames have been read."""

    state: State
    way: Walk
    steps: Iterator[Progress]
    ended: bool = False


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
        self._frames, self._scan, self._geometry, self._recipe = frames, scan, geometry, recipe
        self._preparation = preparation or Preparation()
        self._ranks = ranks or OneRank()
        self._start_probe, self._probe_modes, self._seed, self._job_key = start_probe, probe_modes, seed, job_key
        self._object_modes, self._on_progress, self._cancelled = object_modes, on_progress, cancelled
        self._subpixel: Subpixel = subpixel
        self._begun: Begun | None = None
        self._streams: bool | None = None
        self._checkpoint: Checkpoint | None = None
        with failing_together(self._ranks):
            _check_input(frames, scan, probe_modes, object_modes)
            check_share(held_out)
            self._share, self._notes = held_out, list[str]()
            far = strays(scan, geometry)
            self._leave_out(far, f"{len(far)} frames that lie far from all others were left out (frame {where(far)}).")
            self._device = self._chosen(device, precision, verbs)
            verbs = verbs or (verbs_on(self._device.device, precision == "half") if self._device.device else "cpu")
            self._verbs = verbs_of(verbs, geometry, precision, _threads(self._ranks), fft)
            self._ranks = ranks_for(self._verbs, self._ranks)
            self._said = {"subpixel": subpixel} | _names_of(self._verbs, verbs)
            self._rank_bytes = memory_of_rank(self._ranks, memory_bytes)
            self._room = room_on_card(self._verbs, self._ranks, self._device.sharing)
            said = (probe_modes, object_modes, seed, held_out, self._said, self._preparation, geometry, len(self._frames))
            self._input = digest_of(*said, self._scan.positions_m, start_probe)
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
            self._placement = _placed(self._scan, self._geometry, self._subpixel, _margin_px(recipe))
        else:
            # A stage that was begun again has safer steps than the recipe says.
            self._begun.way.recomputes_waves |= plan.recomputes_waves
            self._begun.way.stages = (*self._begun.way.stages[:begun], *recipe.stages[begun:])
            if self._begun.ended:
                self._begun.steps, self._begun.ended = steps(self._begun.state, self._begun.way), False

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

    def result(self) -> Reconstruction | None:
        """What there is so far as a Reconstruction, on rank 0; None on the others. All ranks call it together.

        Raises:
            SolverError: no iteration has been done, or it diverged.
        """
        begun = self._there()
        with failing_together(self._ranks):
            way, state = begun.way, begun.state
            last = way.progress[-1].errors
            errors = last if "error" in last else model_errors(state, way)
            said = {"recipe": self._done(), "seed": self._seed, "ranks": self._ranks.size}
            said |= {"probe_modes": self._probe_modes, "object_modes": self._object_modes, "notes": [*self._notes, *way.refitted]}
            said |= {"device": self.device_used}
            said |= {"resumed": list(way.resumed)} if way.resumed else {}
            made = reconstruction_of(state, errors, self._scan, self._placement, self._geometry, way, said | self._said)
            made = with_positions(with_modes(made, state, way), state, way)
        return made if self._ranks.rank == 0 else None

    def checkpoint(self) -> Checkpoint:
        """All that this rank needs to go on from here in another process; all ranks call it together.

        Raises:
            SolverError: no iteration has been done.
        """
        begun = self._there()
        with failing_together(self._ranks):
            return taken(begun.state, begun.way, self._task(), digest_of(self._scan.frame_ids))

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
        return task_of(self._job_key, self._recipe, self._said["verbs"], self._ranks.rank, self._ranks.size, self._input)

    def _done(self) -> str:
        """The recipe as far as it has been done."""
        begun, left = [], len(self._there().way.progress)
        for stage in self._recipe.stages:
            if left:
                begun.append(replace(stage, iterations=min(left, stage.iterations)))
                left -= begun[-1].iterations
        return str(Recipe(tuple(begun)))

    def _there(self) -> Begun:
        if self._begun is None or not self._begun.way.progress:
            raise SolverError("there is no object, probe or result before the first iteration: ask for it inside the loop, or after it.")
        return self._begun

    def _check(self, recipe: Recipe) -> Plan:
        check_recipe(recipe)
        self._check_probe(recipe)
        plan = self._plan_of(recipe)
        _LOG.info("%s", plan)
        plan.check()
        return plan

    def _check_probe(self, recipe: Recipe) -> None:
        """Refuse to keep a probe that is not known, and to centre one where the detector sees it move."""
        refinements, start = [refinements_of(stage) for stage in recipe.stages], self._start_probe
        given = 0 if start is None else 1 if np.ndim(start) == 2 else len(start)
        if given < self._probe_modes and all(asked.probe == "fixed" for asked in refinements):
            raise RecipeError(
                f'the recipe keeps the probe in all its stages (probe="fixed"), but of its {self._probe_modes} mode(s) {given} are known: '
                "give a start probe with as many, or free it in a stage."
            )
        if self._geometry.near_field and any(asked.centre_probe for asked in refinements):
            raise RecipeError("in the near field the detector sees where the probe stands: leave out centre_probe.")

    def _plan_of(self, recipe: Recipe) -> Plan:
        waves = self._probe_modes * self._object_modes * self._placement.corners.shape[1]
        task = Task(len(self._scan), self._frames.dtype, self._geometry, self._placement, waves, self._object_modes, _threads(self._ranks))
        return make_plan(recipe, task, self._verbs, self._ranks, self._rank_bytes, self._streams, self._room)

    def _begin(self) -> Begun:
        """Read and prepare the frames of this rank, find the start."""
        all_mine, fitted = self._prepared()
        self._streams = all_mine.are_stored
        scan, ranks, placement = self._scan, self._ranks, self._placement
        all_mine = with_monitor(all_mine, scan.monitor)
        mine, unseen = all_mine.part(0, fitted), all_mine.part(fitted, len(all_mine))
        self._fit_the_card()
        way = _way(mine, unseen, len(scan) - len(self._held_out), self._verbs, ranks)
        way.seed, way.job_key, way.on_progress, way.cancelled = self._seed, self._job_key, self._on_progress, self._cancelled
        way.stages, way.recomputes_waves = self._recipe.stages, self.plan().recomputes_waves
        way.said, way.rounds = self._said_px()[all_mine.numbers], self._subpixel == "none"
        if self._checkpoint and self._checkpoint.numbers["frames"] != digest_of(scan.frame_ids):
            self._notes.append("It began again: other frames are broken now than at the checkpoint.")
            _LOG.warning("%s", self._notes[-1])
            self._checkpoint = None
        # What a checkpoint has need not be found; its probe takes the place of this one.
        start = np.ones(mine.good.shape) if self._checkpoint else self._start_probe
        if start is None:
            start = self._probe_from(mine)
        state = start_state(start, self._probe_modes, placement, mine, way, self._object_modes)
        hold_frames(way)
        if self._checkpoint:
            put_back(self._checkpoint, state, way)
            self._checkpoint = None
        return Begun(state, way, steps(state, way))

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
        if card and isinstance(self._verbs, CudaVerbs):
            self._verbs.batch_bytes, self._verbs.counts_bytes = card.batch_bytes, card.counts_bytes

    def _said_px(self) -> NDArray[np.float64]:
        """(frame, substep, yx) px in the object, where the scan says that the frames lie, as exactly as it says it."""
        corners, rests, _ = self._scan.place(self._geometry, _margin_px(self._recipe))
        return np.asarray(corners + rests, dtype=np.float64)

    def _prepared(self) -> tuple[RankFrames, int]:
        """This rank's frames, those held out behind the others, and how many the others are. Broken ones leave the scan."""
        ranks = self._ranks
        while True:
            mine = frames_of_rank(self._scan.positions_m.mean(axis=1), ranks.rank, ranks.size)
            numbers, fitted = held_out_last(mine, self._held_out)
            streams = bool(ranks.largest(int(self.plan().streams)))  # where ranks have unlike numbers of threads, so are their plans
            how = (self._placement, self._geometry, self._preparation, ranks, streams, self._notes.append)
            try:
                return prepare(self._frames, numbers, *how), fitted
            except BrokenFrames as broken:  # on all ranks alike
                self._leave_out(broken.numbers, str(broken))

    def _leave_out(self, numbers: NDArray[np.int64], why: str) -> None:
        """Put the scan without the frames ``numbers`` on pixels, and choose those held out."""
        self._notes += [why] if len(numbers) else []
        self._frames, self._scan = all_but(numbers, self._frames, self._scan)
        self._held_out = frames_to_hold_out(self._scan.positions_m.mean(axis=1), self._share)
        self._placement = _placed(self._scan, self._geometry, self._subpixel, _margin_px(self._recipe))

    def _probe_from(self, mine: RankFrames) -> NDArray[Any]:
        """The start probe that the fitted frames suggest; among them, each has another number than in the scan."""
        seen = np.setdiff1d(np.arange(len(self._scan)), self._held_out)
        among = replace(mine, numbers=np.searchsorted(seen, mine.numbers))
        return probe_from_data(among, self._placement.corners.mean(axis=1)[seen], self._geometry, self._seed, self._ranks)


def start_state(
    start_probe: NDArray[Any], probe_modes: int, placement: Placement, mine: RankFrames, way: Walk, object_modes: int = 1
) -> State:
    """Object of ones, the start probe with its weak modes at the power of the mean frame, no waves yet."""
    shape, do = mine.good.shape, way.verbs
    probe = do.array(given_probe(start_probe, shape, probe_modes).astype(do.dtype))
    do.fix_power(probe, do.zeros((1, 1, 1), do.dtype), way.power)
    image = do.array(start_object(placement.object_shape, do.dtype, object_modes))
    return State(image, probe, do.zeros((0, 1, *shape), do.dtype), window_of(mine.corners, shape))


def _names_of(verbs: Verbs, choice: VerbsChoice) -> dict[str, str]:
    """Which verbs they are, and how exact."""
    precision = "double" if verbs.dtype == np.complex128 else "half" if isinstance(verbs, CudaVerbs) and verbs.half_waves else "single"
    name = choice if isinstance(choice, str) else "cuda" if isinstance(verbs, CudaVerbs) else type(verbs).__name__
    return {"precision": precision, "verbs": "reference" if precision == "double" and isinstance(choice, str) else name}


def _threads(ranks: Ranks) -> int:
    """This rank's share of the processor's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // ranks.size)


def _way(mine: RankFrames, unseen: RankFrames, frame_count: int, verbs: Verbs, ranks: Ranks) -> Walk:
    """mine: the frames to be fitted, ``frame_count`` on all ranks; unseen: those held out"""
    counts = np.zeros(2)
    for place, frames in enumerate((mine, unseen)):
        for frame in frames.counts:
            counts[place] += frame.sum(where=frames.good, dtype=np.float64)
    total, held_out = map(float, ranks.sum(counts))
    if not total > 0:
        raise SolverError(
            f"all {frame_count} frames are empty in their good pixels: was the shutter open, and is the mask right (0 = good)?"
        )
    way = Walk(mine, verbs, ranks, ranks.largest(len(mine)), total, total / frame_count)
    if ranks.largest(len(unseen)):
        way.held_out, way.held_out_counts = unseen, held_out
    return way


def _margin_px(recipe: Recipe) -> int:
    """Pixels around the positions, such that frames may move as far as the recipe lets them."""
    every = [refinements_of(stage) for stage in recipe.stages]
    return _MARGIN_PX + math.ceil(max((each.positions_max for each in every if each.positions != "fixed"), default=0))


def _placed(scan: Scan, geometry: Geometry, subpixel: Subpixel, margin_px: int) -> Placement:
    """The scan on pixels; without rests where they are not asked for, or too small to be seen."""
    placement = scan.place(geometry, margin_px)
    if subpixel == "probe" and np.abs(placement.rests).max() > _SMALLEST_REST_PX:
        return placement
    return placement._replace(rests=np.zeros_like(placement.rests))


def _check_input(frames: Frames, scan: Scan, probe_modes: int, object_modes: int) -> None:
    if len(frames) != len(scan):
        raise ScanError(f"{len(frames)} frames but {len(scan)} positions: give one position per frame.")
    for name, modes in (("probe_modes", probe_modes), ("object_modes", object_modes)):
        if modes < 1:
            raise SolverError(f"{name} = {modes}: give 1 or more.")
