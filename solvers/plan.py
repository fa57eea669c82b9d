"""What a reconstruction will need and how it will be done, said before anything is allocated."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ptyplugin.model import Geometry, Placement, Recipe, SolverError
from ptyplugin.solvers.algorithms import algorithm_of
from ptyplugin.solvers.batches import open_size
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.verbs import Verbs

#: The object, its copies and its sums while a sweep runs.
_CANVASES = 4
#: Bytes of a count as it is kept.
_COUNT_BYTES = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """Need and choice; ``str(plan)`` says it in words. Bytes are of all ranks together.

    object_shape: (y, x), px
    waves: per frame: probe modes times object modes times sub-steps
    batch_frames: for each stage, its algorithm and how many frames a rank works on at once
    keeps_waves: whether exit waves of all frames are stored; else they are computed when they are needed
    there_bytes: memory of this machine
    """

    frames: int
    frame_shape: tuple[int, int]
    object_shape: tuple[int, int]
    waves: int
    ranks: int
    batch_frames: tuple[tuple[str, int], ...]
    keeps_waves: bool
    counts_bytes: int
    waves_bytes: int
    canvas_bytes: int
    there_bytes: int

    @property
    def needed_bytes(self) -> int:
        """All that is kept from iteration to iteration, beside the interpreter and its libraries."""
        return self.counts_bytes + self.waves_bytes + self.canvas_bytes

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            SolverError: more memory than this machine has.
        """
        if self.needed_bytes > self.there_bytes:
            rows, columns = self.frame_shape
            raise SolverError(
                f"{self.frames} frames of {rows} x {columns} px with {self.waves} waves each need about "
                f"{self.needed_bytes / 1e9:.0f} GB of memory, this machine has {self.there_bytes / 1e9:.0f} GB: crop the frames, or use "
                "fewer probe modes."
            )

    def __str__(self) -> str:
        waves = "stored" if self.keeps_waves else "computed when needed"
        batches = ", ".join(f"{algorithm} {frames} frame(s) at once" for algorithm, frames in self.batch_frames)
        return "\n".join(
            [
                f"{self.frames} frames of {self.frame_shape[0]} x {self.frame_shape[1]} px on {self.ranks} rank(s), "
                f"object {self.object_shape[0]} x {self.object_shape[1]} px",
                f"{batches}; {self.waves} wave(s) per frame, {waves}",
                f"memory: {_in_words(self.needed_bytes)} of {_in_words(self.there_bytes)} (counts {_in_words(self.counts_bytes)}, "
                f"waves {_in_words(self.waves_bytes)}, object {_in_words(self.canvas_bytes)})",
            ]
        )


def make_plan(
    recipe: Recipe,
    frame_count: int,
    placement: Placement,
    geometry: Geometry,
    modes: int,
    verbs: Verbs,
    ranks: Ranks,
    object_modes: int = 1,
) -> Plan:
    """The plan for a recipe on so many frames.

    Raises:
        RecipeError: an unknown algorithm or option.
    """
    (rows, columns), (height, width) = geometry.shape, placement.object_shape
    waves = modes * placement.corners.shape[1] * object_modes
    algorithms = [algorithm_of(stage) for stage in recipe.stages]
    keeps = any(algorithm.keeps_waves for algorithm, _ in algorithms)
    share, block = -(-frame_count // ranks.size), verbs.batch_frames((rows, columns), waves)
    wished = [block if algorithm.walks == "blocks" else options.batch or open_size(share) for algorithm, options in algorithms]
    return Plan(
        frames=frame_count,
        frame_shape=(rows, columns),
        object_shape=(height, width),
        waves=waves,
        ranks=ranks.size,
        batch_frames=tuple((stage.algorithm, min(size, share)) for stage, size in zip(recipe.stages, wished, strict=True)),
        keeps_waves=keeps,
        counts_bytes=frame_count * rows * columns * _COUNT_BYTES,
        waves_bytes=frame_count * waves * rows * columns * verbs.dtype.itemsize if keeps else 0,
        canvas_bytes=ranks.size * _CANVASES * object_modes * height * width * verbs.dtype.itemsize,
        there_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def _in_words(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.3g} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.3g} MB"
