"""Random walks through the ledger, killed and opened again on the way, against a ledger made of dictionaries."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ptyplugin.jobs import MAX_TRIES, Entry, Ledger
from ptyplugin.model import GeometryNumbers, Job, Resources, RunSource


def _job(seed: int, priority: int) -> Job:
    return Job(
        beamline="sim",
        source=RunSource(run_uid="run-1", key="detector"),
        geometry=GeometryNumbers(energy_ev=8000, distance_m=2, pixel_m=75e-6, shape=(128, 128)),
        recipe="DM(20)",
        seed=seed,
        frames=[],
        frame_ids=[],
        positions_m=[],
        resources=Resources(priority=priority),
    )


class Walk(RuleBasedStateMachine):
    """Each rule does the same to the ledger and to ``expected``: state and tries by key, in the order of arrival."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = Ledger(self.folder / "ledger.sqlite")
        self.expected: dict[str, tuple[str, int]] = {}
        self.priority: dict[str, int] = {}
        self.claimed: list[Entry] = []

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.folder)

    @rule(seed=st.integers(0, 5), priority=st.integers(0, 2))
    def put(self, seed: int, priority: int) -> None:
        job = _job(seed, priority)
        assert self.ledger.put(job) == (job.key not in self.expected)
        self.expected.setdefault(job.key, ("queued", 0))
        self.priority.setdefault(job.key, priority)

    @rule()
    def claim(self) -> None:
        waiting = [key for key, (state, _) in self.expected.items() if state == "queued"]
        entry = self.ledger.claim(1000.0)
        if not waiting:
            assert entry is None
            return
        assert entry is not None
        assert entry.key == max(waiting, key=lambda key: self.priority[key])
        self.expected[entry.key] = ("running", self.expected[entry.key][1] + 1)
        self.claimed.append(entry)

    @precondition(lambda self: self.claimed)
    @rule(end=st.sampled_from(["solved", "failed", "cancelled"]), pick=st.randoms(use_true_random=False))
    def end(self, end: str, pick) -> None:
        entry = self.claimed.pop(pick.randrange(len(self.claimed)))
        if end == "solved":
            self.ledger.solved(entry, Path("a.h5"))
        else:
            getattr(self.ledger, end)(entry, "a reason.")
        self.expected[entry.key] = (end, entry.tries)

    @precondition(lambda self: self.claimed)
    @rule(count_try=st.booleans())
    def requeue(self, count_try: bool) -> None:
        entry = self.claimed.pop()
        self.ledger.requeue(entry, "killed.", count_try=count_try)
        given_up = count_try and entry.tries >= MAX_TRIES
        self.expected[entry.key] = ("failed", entry.tries) if given_up else ("queued", entry.tries - (not count_try))

    @rule()
    def publish(self) -> None:
        for entry in self.ledger.list(state="solved"):
            self.ledger.published(entry)
            self.expected[entry.key] = ("published", entry.tries)

    @rule()
    def open_again(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.folder / "ledger.sqlite")

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "ledger"):
            assert {entry.key: (entry.state, entry.tries) for entry in self.ledger.list()} == self.expected
            assert all(self.ledger.history(key)[-1].state == state for key, (state, _) in self.expected.items())


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
