"""From numbers to one word: good, doubtful or failed, and the sentences that say why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ptyplugin.model import Convergence, ErrorName, Progress, Verdict

#: The error converged if it fell by no more than this share in 10 iterations, and is no more than that share above its smallest.
_FALLS, _CLIMBS = 0.05, 0.2
#: Over how many iterations a fall is seen, and the fewest iterations of a stage that show one.
_APART, _FEWEST = 5, 4
_SEEN_ON: tuple[ErrorName, ...] = ("error", "running_error", "constraint_residual")


class _Limit(NamedTuple):
    """From where on a number speaks against an image, and against any use of it. docs/explanations/trust.md tells how they were found."""

    doubtful: float
    failed: float


_HELD_OUT = _Limit(2.0, 5.0)  # times the fitted error, of so many frames or more: chance spreads the ratio of fewer further
_HELD_OUT_FRAMES = 6
_ABOVE_NOISE = _Limit(0.004, 0.1)  # error without the noise floor, where that is a third of the floor or more
_UNEXPLAINED = _Limit(0.25, 0.35)  # of what changes from frame to frame, where that is a third of the noise floor or more
_OVERLAP = _Limit(0.4, 0.0)
_FRAMES = 20
_AT_FRAME_BORDER, _AT_OBJECT_BORDER = 0.15, 5.0
_COHERENT, _GOOD_PIXELS = 0.4, 0.8


def judge(quality: Mapping[str, float], progress: Sequence[Progress], last_stage: int, notes: Sequence[str] = ()) -> Verdict:
    """The verdict on an image from its numbers (``quality_of``), and its errors on the way.

    last_stage: how many of the iterations belong to the last stage; notes: sentences about what went wrong
    """
    convergence, how = _convergence(progress, last_stage)
    found = [*_errors(quality), *_unexplained(quality, convergence), *_scan(quality), *_borders(quality)]
    # Too few iterations explain most else.
    reasons = ([how] if convergence != "converged" else []) + [sentence for _, sentence in found] + list(notes)
    failed = any(fatal for fatal, _ in found)
    return Verdict("failed" if failed else "doubtful" if reasons else "good", convergence, tuple(reasons))


def _errors(quality: Mapping[str, float]) -> Iterator[tuple[bool, str]]:
    error, floor = quality["error"], quality["noise_floor"]
    if error - floor > max(_ABOVE_NOISE.doubtful, floor / 3):
        yield (
            error - floor > _ABOVE_NOISE.failed,
            f"The error {error:.3g} is far above what counting noise leaves ({floor:.2g}): check orientation, distance and positions, or "
            "use more probe modes.",
        )
    if _unseen_are_worse(quality, _HELD_OUT.doubtful):
        held_out, fitted = quality["held_out_error"], quality["fitted_error"]
        yield (
            _unseen_are_worse(quality, _HELD_OUT.failed),
            f"Frames that the fit did not see are explained {held_out / fitted:.1f} times worse ({held_out:.3g}) than those that it "
            f"saw ({fitted:.3g}): check orientation, distance and positions, or scan with smaller steps.",
        )


def _unseen_are_worse(quality: Mapping[str, float], times: float) -> bool:
    """Whether frames held out are explained so many times worse than the others, or more where they are few."""
    if "held_out_error" not in quality:
        return False
    chance: float = max(1.0, _HELD_OUT_FRAMES / max(quality.get("held_out_frames", _HELD_OUT_FRAMES), 1)) ** 0.5
    return quality["held_out_error"] > (1 + (times - 1) * chance) * quality["fitted_error"]


def _unexplained(quality: Mapping[str, float], convergence: Convergence) -> Iterator[tuple[bool, str]]:
    """What is left of the frames' differences from their mean; noise, that no image explains, taken off both."""
    floor = quality["noise_floor"]
    left, all_of_it = quality["error"] - floor, quality["mean_frame_error"] - floor
    if left > floor / 3 and left > _UNEXPLAINED.doubtful * all_of_it > 0:  # nothing changes in a single frame
        fatal = left > _UNEXPLAINED.failed * all_of_it or _unseen_are_worse(quality, _HELD_OUT.doubtful)
        yield (
            fatal and convergence != "still falling",  # more iterations may yet explain it
            f"Too little of what changes from frame to frame is explained (error {quality['error']:.3g}; with nothing but their mean frame "
            f"{quality['mean_frame_error']:.3g}): check the axes and signs of the positions, and whether each is that of its frame.",
        )


def _scan(quality: Mapping[str, float]) -> Iterator[tuple[bool, str]]:
    if quality["frames"] < _FRAMES:
        yield False, f"There are only {quality['frames']:.0f} frames."
    overlap = quality.get("overlap", 0.0)
    if overlap < _OVERLAP.doubtful:
        words = "do not overlap" if overlap <= 0 else f"overlap by only {overlap:.2f} of the beam's diameter"
        yield overlap < _OVERLAP.failed, f"Neighbouring frames {words}: at least 0.6 is needed, scan with smaller steps."
    if quality["good_share"] < _GOOD_PIXELS:
        yield False, f"Only {quality['good_share']:.0%} of the pixels could be used: the others are masked, dead or saturated."


def _borders(quality: Mapping[str, float]) -> Iterator[tuple[bool, str]]:
    if quality["coherent_share"] < _COHERENT:
        yield False, f"The strongest probe mode holds only {quality['coherent_share']:.0%} of the power: the modes may hide another fault."
    if quality.get("probe_at_border", 0.0) > _AT_FRAME_BORDER:
        yield (
            False,
            f"{quality['probe_at_border']:.0%} of the probe's power lie at the border of its frame: the beam is larger than the frame can "
            "hold. Crop less, or move the detector further away.",
        )
    if quality["object_at_border"] > _AT_OBJECT_BORDER:
        yield (
            False,
            f"Where hardly any light falls the object is {quality['object_at_border']:.1f} times as strong as elsewhere: its scale runs "
            "away at the border. Use smaller steps, or a smaller object_max.",
        )


def _convergence(progress: Sequence[Progress], last_stage: int) -> tuple[Convergence, str]:
    """The word, and the sentence for a word other than "converged"."""
    errors = _points(progress, "error")
    if errors:
        (first, least), (end, last) = min(errors, key=lambda point: point[1]), errors[-1]
        if last > (1 + _CLIMBS) * least:
            return "climbing", f"The error climbs: {least:.3g} in iteration {first}, {last:.3g} in iteration {end}. Use smaller steps."
    fall = _fall(progress[-last_stage:] if last_stage >= _FEWEST else progress)
    if fall >= 1:
        return "still falling", "The error was still falling fast when the iterations ended: do more of them."
    if fall > _FALLS:
        return "still falling", f"The error was still falling in the end, by {fall:.0%} in 10 iterations: do more of them."
    return "converged", ""


def _fall(progress: Sequence[Progress]) -> float:
    """By which share the error falls in 10 iterations, in the end; by all of it where there are too few iterations to say.

    Seen on ``error`` where that was measured early enough before the end, else on what the algorithm measures itself.
    """
    end = progress[-1].iteration
    half = max(len(progress) // 2, 2)
    for name in _SEEN_ON:
        points = _points(progress, name)
        before = [point for point in points if point[0] <= end - min(_APART, half)]
        if before and points[-1][0] == end:
            (begin, first), (_, last) = before[-1], points[-1]
            return 10 / (end - begin) * (first - last) / max(last, 1e-12)
    return 1.0


def _points(progress: Sequence[Progress], name: ErrorName) -> list[tuple[int, float]]:
    return [(one.iteration, one.errors[name]) for one in progress if name in one.errors]
