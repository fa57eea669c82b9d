"""Whether what was collected of a run is what the profile names, and enough of it."""

from __future__ import annotations

from collections.abc import Iterable

from ptyplugin.callbacks.run import CollectedRun
from ptyplugin.model import Profile, ProfileError, ScanError

_MOST_NAMES_IN_A_SENTENCE = 30


def check_keys(run: CollectedRun, profile: Profile) -> None:
    """See that the run has the stream and the keys that the profile names.

    Raises:
        ProfileError: one is not there; the message lists those that are.
    """
    where, stream, positions = f"profile {profile.name!r}", profile.detector.stream, profile.positions
    track, clock = positions.stream or stream, positions.clock
    for place, named in {"detector.stream": stream, "positions.stream": track}.items():
        if named not in run.data_keys:
            streams = listed(run.data_keys)
            raise ProfileError(f"{where}: {place} = {named!r} is no stream of the run, which has: {streams}. Correct the profile.")
    beside = profile.monitor not in run.data_keys[stream] and profile.monitor in run.data_keys[track]
    named_keys = {
        "detector.key": (profile.detector.key, stream),
        "positions.y.key": (positions.y.key, track),
        "positions.x.key": (positions.x.key, track),
        "monitor": (profile.monitor, track if beside else stream),
        "positions.clock.samples": (clock.samples if clock else None, track),
        "positions.clock.frames": (clock.frames if clock else None, stream),
    }
    for place, (name, its_stream) in named_keys.items():
        if name is not None:
            _check_key(run, f"{where}: {place}", name, its_stream)


def _check_key(run: CollectedRun, place: str, name: str, stream: str) -> None:
    keys = run.data_keys[stream]
    if name not in keys:
        elsewhere = [other for other, its_keys in sorted(run.data_keys.items()) if name in its_keys]
        raise ProfileError(
            f"{place} = {name!r} is not in stream {stream!r}{f' but in {elsewhere[0]!r}' if elsewhere else ''}. "
            f"Its keys are: {listed(keys)}. Correct the profile."
        )
    if not place.endswith("detector.key") and not (keys[name].external or "STREAM:").startswith("STREAM:"):
        raise ProfileError(
            f"{place}: {name!r} lies in files of a kind that is not read ({keys[name].external!r:.80}): let the plan read it into events."
        )


def notes_on(run: CollectedRun, profile: Profile) -> list[str]:
    """Sentences on what is left out of the job.

    Raises:
        ScanError: nothing is left, or more is left out than the profile allows (of a run that was aborted, all that there is is used).
    """
    tally, ending = run.tally, _ending(run)
    expected = max(run.points or 0, tally.events)
    counted = f"{expected} points, {tally.positions} with a position, {tally.frames} with frames, {tally.matched} with both"
    if tally.matched == 0:
        raise ScanError(f"no frame of {profile.detector.key!r} has a position ({counted}). {ending or 'Was the detector triggered?'}")
    # Of some points part of the documents came, but neither frame nor position.
    seen = min(tally.events, tally.positions + tally.frames - tally.matched)
    left_out = [
        (max(expected - seen, 0), expected, "points that the run counted, but whose documents did not come"),
        (tally.positions - tally.matched, tally.positions, "positions without a frame"),
        (tally.frames - tally.matched, tally.frames, "frames without a position (counted in points)"),
    ]
    largest, allowed = max(missing / max(total, 1) for missing, total, _ in left_out), profile.positions.largest_mismatch
    if largest > allowed and run.exit_status not in ("abort", "fail"):
        raise ScanError(
            f"frames and positions do not match ({counted}): {largest:.1%} are missing, and positions.largest_mismatch of the profile "
            f"allows {allowed:.1%}. Look for lost triggers, or allow more."
        )
    notes = [f"Left out, {what}: {missing} of {total}." for missing, total, what in left_out if missing]
    if tally.replaced_frames:
        notes.append(f"Left out, frames of points that were taken again: {tally.replaced_frames}.")
    return [ending, *notes] if ending else notes


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, sorted; of many the first ones."""
    ordered = sorted(names)
    more = len(ordered) - _MOST_NAMES_IN_A_SENTENCE
    return ", ".join(ordered[:_MOST_NAMES_IN_A_SENTENCE]) + (f", and {more} more" if more > 0 else "") or "none"


def _ending(run: CollectedRun) -> str:
    if run.exit_status == "success":
        return ""
    reason = f" ({run.reason})" if run.reason else ""
    return f"The run ended with exit status {run.exit_status!r}{reason}: only what was taken until then is used."
