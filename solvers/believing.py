"""What cannot be believed: broken and dark frames, saturated pixels, frames far away from all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ptyplugin.model import Frames, FramesError, Geometry, Scan
from ptyplugin.solvers.ranks import Ranks

#: A frame with a larger share of bad pixels is broken.
_BROKEN = 0.5
#: A frame with less than this share of the median's counts is dark, if those are counts enough.
_DARK, _ENOUGH_COUNTS = 1e-3, 1000.0
#: A scan with a larger share of frames that cannot be believed is none.
_MOST = 0.5
#: Of a scan without saturation few pixels have the highest counts, and more have nearly as many; of lower counts nothing can be said.
_TOP_COUNTS, _AT_TOP, _NEAR_TOP = 50.0, 10, 0.9
#: Frames that lie far from all others: at most this share of a scan.
_STRAYS = 0.1

_WHY_BAD = "not finite, negative, at the top of their integer type, or saturated"


class BrokenFrames(FramesError):
    """Some frames of a scan are broken, the others can be used. ``numbers`` (frame,) are theirs, ``sums`` (frame,) counts of all frames."""

    def __init__(self, numbers: NDArray[np.int64], sums: NDArray[np.float64], sentence: str) -> None:
        super().__init__(sentence)
        self.numbers, self.sums = numbers, sums


@dataclass(frozen=True, slots=True)
class SomeFrames:
    """Those frames of ``frames`` whose numbers are ``kept``, as if there were no others."""

    frames: Frames
    kept: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        return self.frames.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.frames.dtype

    @property
    def mask(self) -> NDArray[np.uint8] | None:
        return self.frames.mask

    def __len__(self) -> int:
        return len(self.kept)

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        return self.frames.read(self.kept[frames])


class Looked:
    """What is seen of the frames of one rank while they are read.

    good: (y, x) as stored, what the mask says; loses the pixels that are bad in a frame that is not broken
    inside: (y, x) as stored, the pixels that are kept
    frame_count: of the whole scan
    earlier: (frame,) counts of its first frames, which were judged before
    """

    def __init__(
        self, good: NDArray[np.bool_], inside: NDArray[np.bool_], frame_count: int, earlier: NDArray[np.float64] | None = None
    ) -> None:
        self.masked = ~good & inside
        self.good = good.copy()
        self._counting = good & inside
        self._broken, self._sums = np.zeros(frame_count), np.zeros(frame_count)
        self._earlier = np.zeros(0) if earlier is None else earlier
        self._top, self._at_top, self._near_top, self._below = 0.0, 0, 0, 0

    def see(self, numbers: NDArray[np.int64], chunk: NDArray[Any], bad: NDArray[np.bool_]) -> None:
        """Some frames as stored, and which of their pixels are bad."""
        if bad.any():
            share = np.count_nonzero(bad & self._counting, axis=(1, 2)) / max(np.count_nonzero(self._counting), 1)
            self._broken[numbers] = share > _BROKEN
            self.good &= ~bad[share <= _BROKEN].any(axis=0)
        believed = np.where(bad | ~self._counting, 0, chunk)
        self._sums[numbers] = believed.sum(axis=(1, 2), dtype=np.float64)
        self._below += int(np.count_nonzero(believed < 0)) if chunk.dtype.kind == "f" else 0
        self._look_at_top(believed)

    def _look_at_top(self, counts: NDArray[Any]) -> None:
        top = float(counts.max(initial=0))
        if top > self._top:
            self._top, self._at_top, self._near_top = top, 0, 0
        if self._top < _TOP_COUNTS or top <= _NEAR_TOP * self._top:
            return
        near = counts[counts > _NEAR_TOP * self._top]
        at_top = int(np.count_nonzero(near == self._top))
        self._at_top, self._near_top = self._at_top + at_top, self._near_top + near.size - at_top

    def judge(self, ranks: Ranks, say: Callable[[str], object]) -> NDArray[np.float64]:
        """Say in sentences what was seen on all ranks; they call it together. ``good`` is then the same on all.

        Gives the counts (frame,) of all frames of the scan.

        Raises:
            BrokenFrames: frames that are broken or dark, if the others can be used.
            FramesError: most are.
        """
        sums, broken, masked_somewhere = ranks.sum(self._sums), ranks.sum(self._broken), ranks.sum((~self.good).astype(np.int32))
        self.good = np.asarray(masked_somewhere == 0)
        sums[: len(self._earlier)] = self._earlier
        self._judge_frames(sums, broken > 0)
        fallen = int(np.count_nonzero(self._counting & ~self.good))
        if fallen:
            say(f"{fallen} pixels that are {_WHY_BAD} in some frame are masked in all.")
        below = float(ranks.sum(np.array([float(self._below)]))[0])
        if below:
            share = below / (len(sums) * np.count_nonzero(self._counting))
            say(f"{share:.1%} of all counts lie below zero, as the noise of a subtracted background does: they are taken as zero.")
        if self._at_top >= _AT_TOP and self._at_top > self._near_top:
            say(
                f"Many pixels have exactly {self._top:g} counts, and none has more: the detector looks saturated. If so, name "
                f"saturated_counts = {self._top:g} in the profile, or mask these pixels."
            )
        return sums

    def _judge_frames(self, sums: NDArray[np.float64], broken: NDArray[np.bool_]) -> None:
        lit = sums[~broken & (sums > 0)]
        dark = ~broken & (sums < _DARK * np.median(lit)) if lit.size and np.median(lit) > _ENOUGH_COUNTS else np.zeros_like(broken)
        dark[: len(self._earlier)] = False
        numbers = np.flatnonzero(broken | dark)
        said = _listed(
            {
                f"with more than half of their pixels bad ({_WHY_BAD})": np.flatnonzero(broken),
                "without light": np.flatnonzero(dark),
            }
        )
        if len(numbers) > _MOST * len(sums):
            raise FramesError(f"{len(numbers)} of {len(sums)} frames cannot be used, {said}: check the shutter, the detector and the mask.")
        if len(numbers):
            raise BrokenFrames(numbers, sums, f"{len(numbers)} of {len(sums)} frames cannot be used and were left out, {said}.")


def strays(scan: Scan, geometry: Geometry) -> NDArray[np.int64]:
    """Numbers of a few frames that lie further from all others than a frame is wide: of a readback that was wrong for a moment.

    None if they would be more than a tenth of the scan.
    """
    field_m = np.asarray(geometry.object_pixel_m) * geometry.shape
    cells, cell_of = np.unique(np.floor(scan.positions_m.mean(axis=1) / field_m), axis=0, return_inverse=True)
    pairs = cKDTree(cells).query_pairs(1.5, output_type="ndarray")
    edges = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(cells), len(cells)))
    group_of = connected_components(edges, directed=False)[1][cell_of.ravel()]
    sizes = np.bincount(group_of)
    far = np.flatnonzero(group_of != sizes.argmax())
    return far if len(far) <= _STRAYS * len(scan) else far[:0]


def chosen(kept: NDArray[np.int64], frames: Frames, scan: Scan) -> tuple[Frames, Scan]:
    """Frames and scan of the frames ``kept`` only, in that order."""
    if np.array_equal(kept, np.arange(len(scan))):
        return frames, scan
    monitor = None if scan.monitor is None else scan.monitor[kept]
    return SomeFrames(frames, kept), Scan(scan.positions_m[kept], scan.frame_ids[kept], monitor)


def _listed(groups: dict[str, NDArray[np.int64]]) -> str:
    return ", and ".join(f"{len(each)} {what} (frame {where(each)})" for what, each in groups.items() if len(each))


def where(numbers: NDArray[np.int64]) -> str:
    """The first five of them, in words."""
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
