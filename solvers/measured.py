"""Measured: the frames and positions that are used, on the pixels of an object. They may become more while the scan goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Frames, Geometry, Placement, Scan, ScanError, SolverError, Subpixel
from ptyplugin.model.scan import LARGEST_OBJECT_PX
from ptyplugin.solvers.batches import owners_of
from ptyplugin.solvers.believing import chosen, strays, where
from ptyplugin.solvers.held_out import frames_to_hold_out

#: A scan on a grid of pixels whose positions miss it by no more than this is on the grid.
_SMALLEST_REST_PX = 0.01


@dataclass(frozen=True, slots=True)
class Manner:
    """How frames are put on pixels, and to whom.

    share: of the frames, that the fit does not see; ranks: how many there are
    lattice_px: (y, x) px of positions; the object's first pixel is a whole number of pixels from there; None: wherever frames begin
    """

    geometry: Geometry
    subpixel: Subpixel
    share: float
    ranks: int
    lattice_px: NDArray[np.float64] | None = None

    def at_px(self, scan: Scan) -> NDArray[np.float64]:
        """(frame, substep, yx) positions in pixels of the object."""
        return np.asarray(scan.positions_m / np.asarray(self.geometry.object_pixel_m))


@dataclass(frozen=True, slots=True)
class Measured:
    """What a reconstruction is made from, without frames that cannot be believed.

    A frame's number is its place in ``scan``. Frames that are admitted later come behind the others: so numbers stay.

    given: all frames and positions that somebody gave; used: (frame,) which of them are used; broken: which of them are broken or dark
    frames, scan: those that are used; placement: where they lie in the object
    origin_px: (y, x) px of positions, of the object's first pixel
    owners: (frame,) the rank that has it; held_out: numbers of the frames that the fit does not see
    """

    manner: Manner
    given: tuple[Frames, Scan]
    used: NDArray[np.int64]
    broken: NDArray[np.int64]
    frames: Frames
    scan: Scan
    placement: Placement
    origin_px: NDArray[np.float64]
    owners: NDArray[np.int64]
    held_out: NDArray[np.int64]

    def without(self, numbers: NDArray[np.int64], margin_px: int) -> Measured:
        """As if the broken frames ``numbers`` had never been given; before the first is worked on."""
        broken = np.concatenate([self.broken, self.used[numbers]])
        return _measured(self.manner, self.given, np.delete(self.used, numbers), broken, margin_px)

    def with_margin(self, margin_px: int) -> Measured:
        """On an object with another margin; before the first frame is worked on."""
        return _measured(self.manner, self.given, self.used, self.broken, margin_px)

    @property
    def strays(self) -> NDArray[np.int64]:
        """Which of the given frames are left out since they lie far from all others."""
        return np.setdiff1d(np.arange(len(self.given[1])), np.concatenate([self.used, self.broken]))

    def left_out(self, first: int) -> list[str]:
        """Sentences about given frames that are not used: those that lie far away, and, from number ``first`` on, those that are broken."""
        far, broken = self.strays, np.sort(self.broken[self.broken >= first])
        said = [f"{len(far)} frames that lie far from all others were left out (frame {where(far)})."] if len(far) else []
        if len(broken):
            said.append(f"{len(broken)} frames that came later cannot be used and were left out (frame {where(broken)}).")
        return said

    def numbers_of(self, rank: int, first: int = 0) -> NDArray[np.int64]:
        """(frame,) numbers of a rank's frames, of those from number ``first`` on, in ascending order."""
        return (first + np.flatnonzero(self.owners[first:] == rank)).astype(np.int64)

    def said_px(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """(frame, substep, yx) px in the object, where the scan says that these frames lie, as exactly as it says it."""
        return np.asarray(self.manner.at_px(self.scan)[numbers] - self.origin_px)

    def grown(self, frames: Frames, scan: Scan, margin_px: int) -> Measured:
        """With all that is used of a longer scan; everything of the frames so far stays, but for the object's edges.

        Frames that lay far from all others are used now if they do no more; those in use stay so.

        Raises:
            ScanError: its beginning is not what was given so far, or the object gets absurdly large.
            SolverError: frames of another shape.
        """
        check_longer(*self.given, frames, scan)
        out = np.concatenate([self.used, self.broken, strays(scan, self.manner.geometry)])
        new = np.setdiff1d(np.arange(len(scan)), out)
        used = np.concatenate([self.used, new])
        some, part = chosen(used, frames, scan)
        placement, origin = _extended(self.placement, self.origin_px, self.manner, part, margin_px)
        have = np.bincount(self.owners, minlength=self.manner.ranks)
        owners = np.concatenate([self.owners, owners_of(scan.positions_m[new].mean(axis=1), self.manner.ranks, have)])
        return replace(self, given=(frames, scan), used=used, frames=some, scan=part, placement=placement, origin_px=origin, owners=owners)

    def dropping(self, numbers: NDArray[np.int64]) -> Measured:
        """Without some frames that came last and turned out to be broken; nothing else changes but later numbers."""
        used, owners = np.delete(self.used, numbers), np.delete(self.owners, numbers)
        placement = self.placement._replace(
            corners=np.delete(self.placement.corners, numbers, axis=0), rests=np.delete(self.placement.rests, numbers, axis=0)
        )
        some, part = chosen(used, *self.given)
        broken = np.concatenate([self.broken, self.used[numbers]])
        return replace(self, used=used, owners=owners, broken=broken, frames=some, scan=part, placement=placement)


def measure(frames: Frames, scan: Scan, manner: Manner, margin_px: int) -> Measured:
    """What there is to begin with, without frames that lie far from all others.

    Raises:
        ScanError: positions and frames do not match, or positions cannot be.
    """
    if len(frames) != len(scan):
        raise ScanError(f"{len(frames)} frames but {len(scan)} positions: give one position per frame.")
    used = np.setdiff1d(np.arange(len(scan)), strays(scan, manner.geometry))
    return _measured(manner, (frames, scan), used, used[:0], margin_px)


def _measured(manner: Manner, given: tuple[Frames, Scan], used: NDArray[np.int64], broken: NDArray[np.int64], margin_px: int) -> Measured:
    frames, scan = chosen(used, *given)
    placement, origin = _placed(scan, manner, margin_px)
    means = scan.positions_m.mean(axis=1)
    owners, held_out = owners_of(means, manner.ranks), frames_to_hold_out(means, manner.share)
    return Measured(manner, given, used, broken, frames, scan, placement, origin, owners, held_out)


def _placed(scan: Scan, manner: Manner, margin_px: int) -> tuple[Placement, NDArray[np.float64]]:
    """The scan on pixels, and where the first of them lies; without rests where they are not asked for, or too small to be seen."""
    placement, at = scan.place(manner.geometry, margin_px), manner.at_px(scan)
    origin = at.min(axis=(0, 1)) - margin_px
    if manner.lattice_px is not None:
        origin = manner.lattice_px + np.rint(origin - manner.lattice_px) - 1
        corners, rests = _on_lattice(at - origin)
        high = corners.max(axis=(0, 1)) + np.asarray(manner.geometry.shape) + margin_px
        placement = Placement(corners, rests, (int(high[0]), int(high[1])))
    return placement._replace(rests=_seen(placement.rests, manner.subpixel)), origin


def _extended(
    before: Placement, origin_px: NDArray[np.float64], manner: Manner, scan: Scan, margin_px: int
) -> tuple[Placement, NDArray[np.float64]]:
    """The placement with the further frames of ``scan``, on the same pixels, and where the first of these lies now."""
    corners, rests = _on_lattice(manner.at_px(scan)[len(before.corners) :] - origin_px)
    if not len(corners):
        return before, origin_px
    shift = np.maximum(margin_px - corners.min(axis=(0, 1)), 0)
    last = corners.max(axis=(0, 1)) + np.asarray(manner.geometry.shape) + margin_px
    shape = shift + np.maximum(last, before.object_shape)
    if shape.max() > LARGEST_OBJECT_PX:
        raise ScanError(
            f"with the frames that came later the object would have {shape[0]} x {shape[1]} px, at most {LARGEST_OBJECT_PX} are possible: "
            "look at the positions since then, and at the motors' units."
        )
    corners = np.concatenate([before.corners, corners]) + shift.astype(np.int32)
    rests = np.concatenate([before.rests, _seen(rests, manner.subpixel)])
    return Placement(corners.astype(np.int32), rests, (int(shape[0]), int(shape[1]))), origin_px - shift


def _on_lattice(at_px: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    corners = np.rint(at_px)
    return corners.astype(np.int32), (at_px - corners).astype(np.float32)


def _seen(rests: NDArray[np.float32], subpixel: Subpixel) -> NDArray[np.float32]:
    return rests if subpixel == "probe" and np.abs(rests).max(initial=0) > _SMALLEST_REST_PX else np.zeros_like(rests)


def check_longer(frames: Frames, scan: Scan, longer: Frames, longer_scan: Scan) -> None:
    """Check that a scan begins with what there was.

    Raises:
        ScanError: it does not, its frames and positions are not of one number, or a monitor came only now.
        SolverError: the frames have another shape.
    """
    if len(longer) != len(longer_scan):
        raise ScanError(f"{len(longer)} frames but {len(longer_scan)} positions were to be admitted: give one position per frame.")
    count, (_, steps, _) = len(scan), longer_scan.positions_m.shape
    same = len(longer_scan) >= count and steps == scan.positions_m.shape[1]
    same = same and np.array_equal(longer_scan.frame_ids[:count], scan.frame_ids)
    if not (same and np.array_equal(longer_scan.positions_m[:count], scan.positions_m)):
        raise ScanError(
            f"a scan of {len(longer_scan)} frames was to be admitted that does not begin with the {count} frames that there are: give all "
            "of them, with the frame ids and positions that they had, and then the new ones."
        )
    if scan.monitor is None and longer_scan.monitor is not None:
        raise ScanError("a monitor was to be admitted, but the frames so far had none: leave it out, or give it from the beginning.")
    if tuple(longer.shape) != tuple(frames.shape):
        raise SolverError(f"frames of {tuple(longer.shape)} px were to be admitted to such of {tuple(frames.shape)} px: they cannot be.")
