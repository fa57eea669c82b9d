"""The page docs/reference/gpu-benchmark.md: ``python -m benchmarks.gpu_table [RESULTS.json ...]``.

Of all benchmarks/results/gpu*.json if none are named. Without any it shows what is predicted, and says that nothing was measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.gpu_device import ROOT
from benchmarks.gpu_problem import moved_bytes
from benchmarks.table import Table, verdict

PAGE = ROOT / "docs" / "reference" / "gpu-benchmark.md"
RESULTS = ROOT / "benchmarks" / "results"
Row = dict[str, Any]
#: On paper, ms per iteration of a difference map with 10000 frames on an H200: by (side, modes), of S1 and of S3.
PREDICTED = {(256, 1): ("18", "9"), (256, 5): ("80 to 97", "38 to 49"), (200, 1): ("12", "6"), (200, 5): ("60", "30")}
PREDICTED_PAIR = "10 to 12"
#: The copy bandwidth that predictions assume, bytes read and written per second.
_ASSUMED = 4.3e12
#: The most time of an iteration, in times of what its bytes need at the copy's bandwidth; the most seconds of the showcase; pty-chi's
#: time, in times of ours, at least.
_SLOWER, _SHOWCASE_S, _PTYCHI = 1.4, 4.0, 8.0
_FRAMES = 10_000

_HEAD = """# GPU benchmark

<!-- Made by `python -m benchmarks.gpu_table`. -->

`python -m benchmarks.gpu` measures all of this in 8 minutes on a machine with a GPU, from a plain checkout. Nothing has to be installed
but Python 3.11 or newer with NumPy, SciPy, pydantic and CuPy; mpi4py with an MPI, PyTorch with pty-chi, pytest, compute-sanitizer and
Nsight Compute are used where they are there. It writes `benchmarks/results/gpu.json` as it goes, the most important first: the bandwidth
of a copy; every verb and every algorithm beside the reference; the difference map (10000 frames, an object of 2000 x 2000 px) by both
schemes over batch size, with CUDA graph and without; the other algorithms; cuFFT alone; two ranks on the card; checkers; peers.

S1 is cuFFT and a kernel for each verb, S3 three kernels with a Fourier transform of their own (decision record 0007). Bytes are those of
waves and counts by the formula that `python -m benchmarks.gpu_bytes` counts on the CPU: 128 + 2 / modes per pixel, mode and iteration by
S1, 64 + 2 / modes by S3.
"""


def page(results: dict[str, Row]) -> str:
    """The page; results: by the name of their file."""
    if not results:
        none = "**No GPU has been at hand so far: nothing was measured.** What follows are predictions.\n"
        return "\n".join([_HEAD, none, predictions().markdown()])
    return "\n".join([_HEAD, predictions().markdown(), *(part for name, result in results.items() for part in _measured(name, result))])


def predictions() -> Table:
    """What is expected, and the least that the bytes need."""
    columns = ["frames", "modes", "scheme", "bytes", "at the copy's bandwidth, ms", "predicted, ms"]
    table = Table("Predicted: difference map, 10000 frames, H200", columns)
    for (side, modes), said in PREDICTED.items():
        for scheme, predicted in zip(("S1", "S3"), said, strict=True):
            moved = moved_bytes(scheme, modes)
            least = 1e3 * moved * _FRAMES * side**2 * modes / _ASSUMED
            table.add(f"{side} x {side}", modes, scheme, moved, round(least, 1), predicted)
    table.notes += [
        f"Bytes per pixel, mode and iteration; the copy's bandwidth is assumed to be {_ASSUMED / 1e12:.1f} TB/s, and predictions count on",
        "a part of the bytes to come from the cache. A pair of transforms of each of 10000 frames of 256 x 256 px by cuFFT alone:",
        f"{PREDICTED_PAIR} ms. Wanted: an iteration in at most {_SLOWER} times what its bytes need; 50 iterations with 10000 frames of",
        f"200 x 200 px and 5 modes in at most {_SHOWCASE_S:.0f} s; pty-chi at least {_PTYCHI:.0f} times slower.",
    ]
    return table


def _measured(name: str, result: Row) -> Iterable[str]:
    known, steps = result["machine"], result["steps"]
    versions = ", ".join(f"{package} {number}" for package, number in known.get("versions", {}).items())
    copy = next((row["gb_per_s"] for row in rows_of(steps, "copy")), None)
    said = f"; a copy on the card moves {copy:.0f} GB/s (read and written)" if copy else ""
    driver = f"driver {known['driver']} (CUDA {known['driver_cuda']}), " if "driver" in known else ""
    yield f"# Measured: {known['device']}\n\n`{name}`, {known['date']}: {driver}{versions}{said}.\n"
    for table in (*_maps(steps), _correct(steps), _algorithms(steps), _transforms(steps), _others(steps), _went(steps)):
        if table.rows:
            yield table.markdown()


def rows_of(steps: dict[str, Row], *names: str) -> list[Row]:
    """The rows of some steps, as far as there are any."""
    return [row for name in names for row in steps.get(name, {}).get("rows", [])]


def _maps(steps: dict[str, Row]) -> Iterable[Table]:
    every = rows_of(steps, *(name for name in steps if name.startswith("DM ")))
    columns = ["frames", "modes", "scheme", "batch", "graph", "ms", "predicted, ms", "GB/s", "of the copy", "time for its bytes"]
    best, whole = Table("Difference map: the best of each", columns), Table("Difference map: all", columns)
    for row in every:
        whole.add(*_map(row))
    for side, modes, scheme in dict.fromkeys((row["side"], row["modes"], row["scheme"]) for row in every):
        same = [row for row in every if (row["side"], row["modes"], row["scheme"]) == (side, modes, scheme)]
        best.add(*_map(min(same, key=lambda row: row["ms"])))
    return best, whole


def _map(row: Row) -> list[Any]:
    size, share = f"{row['frames']} of {row['side']} x {row['side']}", row.get("of_copy")
    said = PREDICTED.get((row["side"], row["modes"])) if row["frames"] == _FRAMES else None
    predicted = said[row["scheme"] == "S3"] if said else None
    kept = verdict(1 / share, _SLOWER) if share else None
    graph = "yes" if row["graph"] else "no"
    return [size, row["modes"], row["scheme"], row["batch"], graph, row["ms"], predicted, row["gb_per_s"], share, kept]


def _correct(steps: dict[str, Row]) -> Table:
    table = Table("Beside the reference", ["step", "compared", "right", "wrong"])
    for name in ("verbs", "algorithms", "graphs", "ranks"):
        rows = [row for row in rows_of(steps, name) if "ok" in row]
        wrong = [row for row in rows if not row["ok"]]
        what = "; ".join(str(row.get("recipe") or row.get("beyond") or row.get("failed")) for row in wrong)
        if rows:
            table.add(name, len(rows), len(rows) - len(wrong), what or "none")
    return table


def _algorithms(steps: dict[str, Row]) -> Table:
    table = Table("Other algorithms, one mode, 200 x 200 px", ["algorithm", "frames", "graph", "ms per iteration", "us per frame"])
    for row in rows_of(steps, "engines"):
        table.add(
            row["algorithm"], row["frames"], "yes" if row["graph"] else "no", row.get("ms", row.get("failed")), row.get("us_per_frame")
        )
    return table


def _transforms(steps: dict[str, Row]) -> Table:
    table = Table("cuFFT alone: a pair of transforms", ["frames", "batch", "us per frame", "ms of 10000", "predicted, ms"])
    for row in rows_of(steps, "transforms"):
        predicted = PREDICTED_PAIR if row["side"] == 256 else None
        table.add(f"{row['side']} x {row['side']}", row["batch"], 1e3 * row["ms_per_frame"], row["ms_of_10000"], predicted)
    return table


def _others(steps: dict[str, Row]) -> Table:
    table = Table("Beside", ["what", "found", "wanted"])
    for row in rows_of(steps, "showcase"):
        kept = verdict(row["seconds"], _SHOWCASE_S) if row["round"] == "warm" else None
        table.add(f"{row['iterations']} iterations, {row['frames']} frames, {row['modes']} modes, {row['round']}: s", row["seconds"], kept)
    for row in rows_of(steps, "peers"):
        if "ratio" in row:
            what = f"pty-chi, {row['side']} x {row['side']}, {row['modes']} mode(s): times ours"
            table.add(what, row["ratio"], verdict(row["ratio"], _PTYCHI, most=False))
    for row in rows_of(steps, "sums"):
        if "ms" in row:
            table.add(f"sums by {'atomics' if row['atomics'] else 'a gather'}, {row['modes']} mode(s): ms", row["ms"], None)
    for row in rows_of(steps, "sanitizer"):
        if "tool" in row:
            table.add(row["tool"], row["end"].strip()[-200:], "0 errors")
    return table


def _went(steps: dict[str, Row]) -> Table:
    table = Table("Steps that are not complete, or warned", ["step", "how it went"])
    for name, step in steps.items():
        left_out = "; ".join(row["left_out"] for row in step["rows"] if "left_out" in row)
        said = [left_out] if left_out else [f"{step['state']}: {step.get('why', '')}"] if step["state"] != "done" else []
        if said or "warnings" in step:
            table.add(name, "; ".join([*said, *step.get("warnings", [])]))
    return table


def stored(paths: Iterable[Path]) -> dict[str, Row]:
    """Results by the name of their file."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def main() -> None:
    paths = [Path(word) for word in sys.argv[1:]] or sorted(RESULTS.glob("gpu*.json"))
    PAGE.write_text(page(stored(paths)), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {', '.join(path.name for path in paths) or 'no results'}")


if __name__ == "__main__":
    main()
