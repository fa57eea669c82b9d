"""What meeting positions between pixels costs and gains: time of an iteration and error at the end, with and without.

    python benchmarks/subpixel.py SCAN.cxi [iterations]

One iteration with and one without are done by turns in one process, so that a noisy machine slows both; medians are compared. The error is
that of the model with object and probe frozen. A scan whose positions are whole pixels costs the same and gains nothing.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import time

from ptyplugin.api import solver

RECIPES = ("DM({})", "DM({}, overlap_rounds=2)", "RAAR({})", "ePIE({})", "mPIE({})")


def compared(path: str, recipe: str) -> tuple[dict[str, float], dict[str, float]]:
    """Error and median milliseconds of an iteration, by ``subpixel``; the first iteration, which also reads the frames, is left out."""
    going = {subpixel: solver(path, recipe, subpixel=subpixel) for subpixel in ("none", "probe")}
    errors, taken = dict.fromkeys(going, 1.0), {subpixel: list[float]() for subpixel in going}
    ended = False
    while not ended:
        for subpixel, one in going.items():
            start = time.perf_counter()
            progress = next(one, None)
            taken[subpixel].append(1e3 * (time.perf_counter() - start))
            ended = progress is None
            errors[subpixel] = errors[subpixel] if progress is None else progress.errors.get("error", errors[subpixel])
    return errors, {subpixel: statistics.median(times[1:-1]) for subpixel, times in taken.items()}


def main() -> None:
    path, iterations = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60
    print(f"repeat with: python {shlex.join(sys.argv)}")
    print(f"{'recipe':30s} {'error: none':>12s} {'probe':>9s}   {'ms: none':>9s} {'probe':>8s}   ratio")
    for recipe in (text.format(f"{iterations}") for text in RECIPES):
        errors, times = compared(path, recipe)
        row = f"{errors['none']:12.5f} {errors['probe']:9.5f}   {times['none']:9.1f} {times['probe']:8.1f}"
        print(f"{recipe:30s} {row}   {times['probe'] / times['none']:.2f}")


if __name__ == "__main__":
    main()
