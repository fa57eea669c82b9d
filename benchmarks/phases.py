"""Frame-phase synchronisation as a part of the table (synchronisation.py does the work)."""

from __future__ import annotations

from benchmarks import synchronisation
from benchmarks.problems import script
from benchmarks.table import Table, verdict

#: The poster's iterations: never, every, every 5th. Ours without synchronisation are the same on every machine: counted once, for hours.
POSTER = {8: (95, 38, 58), 16: (407, 44, 90), 32: (1625, 44, 110), 64: (6465, 44, 120)}
NEVER = {8: 203, 16: 560, 32: 1679, 64: 6006}
_TIMED = 60


def run(quick: bool) -> list[Table]:
    """Iterations, seconds and products for each K."""
    script("sync_problem")
    columns = ["K", "every", "s", "products", "every 5th", "s", "products", "never", "s", "poster: every, 5th, never", "limits"]
    table = Table("Frame-phase synchronisation: iterations of AP to 1e-4, K x K frames", columns)
    table.notes.append(
        f"CPU seconds, one thread. Never: iterations as counted before, times the time of {_TIMED} of them. Limits: <= 46 iterations, "
        "<= 110 with every 5th, <= 60 products, at K = 64 a fifth of the time without."
    )
    synchronisation.run(8, 5)
    for across in (8, 16) if quick else (8, 16, 32, 64):
        every, every_5th = synchronisation.run(across, 1), synchronisation.run(across, 5)
        never_s = synchronisation.seconds(across, 0, _TIMED) * NEVER[across] / _TIMED
        limits = [verdict(every[0], 46), verdict(every_5th[0], 110), verdict(max(every[2], every_5th[2]), 60)]
        limits += [verdict(every[1] / never_s, 0.2)] if across == 64 else []
        poster = POSTER[across]
        table.add(across, *every, *every_5th, NEVER[across], never_s, f"{poster[1]}, {poster[2]}, {poster[0]}", "; ".join(limits))
    return [table]
