"""Refining: what is done after each sweep, whatever the algorithm: a step of everything that is neither object nor probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ptyplugin.solvers.detector_model import refine_detector
from ptyplugin.solvers.options import choice, option
from ptyplugin.solvers.position_search import SEARCHES
from ptyplugin.solvers.positions import refine_positions
from ptyplugin.solvers.probe_constraints import centre_probe, cut_to_disc
from ptyplugin.solvers.state import State
from ptyplugin.solvers.way import Walk

#: Iteration of a stage from which on background and intensities are fitted, and iterations from one step to the next.
_DETECTOR_FROM, _DETECTOR_EVERY = 5, 2


@dataclass(frozen=True, slots=True)
class Refinements:
    """Options of every stage, beside those of its algorithm; made as those are."""

    probe: Literal["free", "fixed"] = choice("free", ("free", "fixed"), "whether the probe is found, or known and kept as it is")
    probe_support: float = option(0.0, 0.0, 1.5, "the probe is 0 beyond this radius, a share of half the frame; 0: everywhere allowed")
    centre_probe: int = option(0, 0, 1_000_000, "iterations from one move of the probe into the middle of its frame to the next; 0: never")
    positions: Literal["fixed", "gradient", "correlation", "trials"] = choice(
        "fixed", SEARCHES, "as the scan said, or moved to where the frames were taken, found by what"
    )
    positions_from: int = option(5, 1, 1_000_000, "iteration of the stage from which on positions are refined")
    positions_every: int = option(2, 1, 1000, "iterations from one step of the positions to the next")
    positions_max: float = option(10.0, 0.1, 1000.0, "how far a frame may be moved from where the scan said, px along each axis")
    background: Literal["none", "constant", "smooth"] = choice(
        "none", ("none", "constant", "smooth"), "counts that no wave makes: not fitted, the same in all pixels, or a smooth map"
    )
    intensities: Literal["fixed", "fitted"] = choice(
        "fixed", ("fixed", "fitted"), "how strong the beam was in each frame: as the monitor said, or fitted"
    )


def refine(state: State, way: Walk, options: Refinements, iteration: int) -> None:
    """Refine what ``options`` ask for, in place, after iteration ``iteration`` of the stage. All ranks call it together.

    Nothing is refined from an object or a probe that is not finite on any rank: that iteration is found to have diverged.
    """
    centres = options.centre_probe > 0 and iteration % options.centre_probe == 0
    moves = options.positions != "fixed" and _is_due(iteration, options.positions_from, options.positions_every)
    fits_detector = options.background != "none" or options.intensities == "fitted"
    fits_detector = fits_detector and _is_due(iteration, _DETECTOR_FROM, _DETECTOR_EVERY)
    if not (options.probe_support or centres or moves or fits_detector) or _is_spoiled(state, way):
        return
    if options.probe_support:
        cut_to_disc(state, way, options.probe_support)
    if centres:
        centre_probe(state, way)
    if moves:
        done = iteration / way.stages[way.begun - 1].iterations
        refine_positions(state, way, options.positions, options.positions_max, done, probe_is_known=options.probe == "fixed")
    if fits_detector:
        refine_detector(state, way, options.background, options.intensities)


def _is_spoiled(state: State, way: Walk) -> bool:
    return way.ranks.largest(int(not way.verbs.all_finite(state.object, state.probe))) > 0


def _is_due(iteration: int, first: int, every: int) -> bool:
    return iteration >= first and (iteration - first) % every == 0
