"""Slots: what each has, which jobs go where, and what becomes of a job whose end cannot be written down."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from at_work import at_work

from ptyplugin.jobs import Entry, Ledger, open_read_only, submit
from ptyplugin.model import Job, LedgerError, Progress, RanksAway, Resources, Site, SiteError, SlotNumbers, TimeIsUp, load_site
from ptyplugin.service import Daemon, Inline, Launcher, Mpiexec, Place, Wish, slot
from ptyplugin.service.slots import places_of
from ptyplugin.service.solving import Task
from ptyplugin.service.weighing import needed_bytes
from ptyplugin.solvers.devices import Devices
from ptyplugin.solvers.driver import Card, Cupy, Driver

STUB = "stub_solving:solve"
CARDS = tuple(Card(number, "H200", f"uuid-{number}", 100 * 10**9, (9, 0)) for number in range(4))
FOUR = Devices(Driver("580.65", (13, 0), CARDS), Cupy({"cupy-cuda13x": "14.2"}, 13))
NONE = Devices(Driver(trouble="there is no NVIDIA card or driver"), Cupy())


def with_slots(site: Site, *slots: SlotNumbers, **changes: object) -> Site:
    return site.model_copy(update={"slot": list(slots), **changes})


def test_the_slots_of_a_site_file(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text("[[slot]]\ngpus = [0]\n[[slot]]\ngpus = [1, 2, 3]\ntime_limit_s = 600\n[[slot]]\nranks = 2\n")
    narrow, wide, processor = places_of(load_site(file), FOUR, {})
    assert [(place.name, place.ranks, place.beside) for place in (narrow, wide, processor)] == [("1", 1, 5), ("2", 3, 3), ("3", 2, 4)]
    assert narrow.gpus == ("GPU-uuid-0",)
    assert wide.gpus == ("GPU-uuid-1", "GPU-uuid-2", "GPU-uuid-3")
    assert (narrow.limit_s, wide.limit_s) == (None, 600)
    assert 0 < 2.9 * narrow.memory_bytes < wide.memory_bytes < 300e9
    assert narrow.takes == wide.takes == ("auto", "gpu")
    assert (processor.gpus, processor.takes) == ((), ("cpu",))
    shares = [place.site.memory_gb or 0 for place in (narrow, wide, processor)]
    assert shares[1] == pytest.approx(3 * shares[0]) == pytest.approx(1.5 * shares[2])


def test_a_site_that_says_nothing_has_one_slot(site: Site) -> None:
    (processor,) = places_of(site, NONE, {})
    assert (processor.ranks, processor.beside, processor.gpus, processor.takes) == (2, 0, (), ("auto", "cpu", "gpu"))
    assert processor.site == site
    (card,) = places_of(site, FOUR, {})
    assert (card.ranks, card.gpus, card.takes) == (2, ("GPU-uuid-0",), ("auto", "cpu", "gpu"))
    assert places_of(with_slots(site, device="cpu"), FOUR, {})[0].gpus == ()
    # Without CuPy nothing can be computed there.
    assert places_of(site, Devices(FOUR.driver, Cupy()), {})[0].gpus == ()


def test_what_a_site_says_of_memory_and_devices_counts(site: Site) -> None:
    both = (SlotNumbers(gpus=[0]), SlotNumbers(ranks=4))
    card, processor = places_of(with_slots(site, *both, memory_gb=8.0, device="cpu"), FOUR, {})
    assert (card.site.memory_gb, processor.memory_bytes) == (8.0, 8 * 10**9)
    assert (card.takes, processor.takes) == (("gpu",), ("auto", "cpu"))


def test_gpus_of_a_process_that_sees_only_some(site: Site) -> None:
    (place,) = places_of(with_slots(site, SlotNumbers(gpus=[1])), FOUR, {"CUDA_VISIBLE_DEVICES": "5, GPU-7f"})
    assert place.gpus == ("GPU-7f",)


def test_wrong_slots_are_told(site: Site, tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="slot 1 of the site file wants GPU 7, which is not there: GPU 0, H200"):
        places_of(with_slots(site, SlotNumbers(gpus=[7])), FOUR, {})
    with pytest.raises(SiteError, match="wants GPU 0, which is not there: there is no NVIDIA card"):
        places_of(with_slots(site, SlotNumbers(gpus=[0])), NONE, {})
    file = tmp_path / "site.toml"
    for text, says in (
        ("[[slot]]\ngpus=[0]\n[[slot]]\ngpus=[1,0]", "GPU 0 is named twice"),
        ("[[slot]]\ngpu=[0]", "did you mean gpus"),
        (2 * "[[slot]]\n[slot.slurm]\nmemory_gb_per_node=8\nport=8771\n", "port 8771 is named twice"),
    ):
        file.write_text(text)
        with pytest.raises(SiteError, match=says):
            load_site(file)


def test_a_job_is_weighed_by_its_plan(make_job: Callable[..., Job], tmp_path: Path) -> None:
    small = make_job()
    frames = 2000
    side = np.arange(frames) * 1e-7
    large = small.model_copy(
        update={
            "frame_ids": [(0, frames)],
            "positions_m": [[(float(y), 0.0)] for y in side],
            "geometry": small.geometry.model_copy(update={"shape": (512, 512)}),
        }
    )
    counts_bytes = frames * 512 * 512 * 2
    assert counts_bytes < needed_bytes(large, tmp_path) < 20 * counts_bytes
    assert 0 < needed_bytes(small, tmp_path) < counts_bytes
    assert needed_bytes(small.model_copy(update={"recipe": "DM(20)", "positions_m": [[(0.0, float("nan"))]] * 3}), tmp_path) == 0


def place(name: str, memory_bytes: int, site: Site) -> Place:
    return Place(name, 1, 1, (), memory_bytes, ("auto", "cpu", "gpu"), site)


def test_jobs_are_shared_out_by_size_and_priority(site: Site, make_job: Callable[..., Job]) -> None:
    """A narrow slot never takes what does not fit; a wide one takes small jobs where the narrow one is busy, and large ones first."""
    with Ledger(site.ledger) as ledger:
        narrow, wide = (
            slot.Slot(place(name, size, site), ledger, Inline(STUB), lambda: False, None) for name, size in (("1", 50), ("2", 500))
        )
        for each in (narrow, wide):
            each.stand_beside([narrow, wide])
        jobs = {name: make_job(seed) for seed, name in enumerate(("small", "another", "large", "huge", "preview"))}
        jobs["preview"] = jobs["preview"].model_copy(update={"resources": Resources(priority=10)})
        for name, size in (("small", 10), ("another", 10), ("large", 100), ("huge", 10**6), ("preview", 10)):
            ledger.put(jobs[name], size)
        names = {job.key: name for name, job in jobs.items()}

        def takes(one: slot.Slot) -> str | None:
            entry = ledger.claim(60.0, one._fitting())
            if entry is None:
                return None
            occupy(one, entry)
            return names[entry.key]

        def occupy(one: slot.Slot, entry: Entry) -> None:
            one._running = slot._Running(entry, Task(site.jobs / entry.key, site), slot.ProgressFile(site.jobs))

        assert takes(wide) == "large", "the narrow slot is idle: what fits there is left to it"
        assert takes(narrow) == "preview"
        assert takes(wide) == "huge", "the widest takes what fits nowhere; large ones before small ones"
        assert takes(wide) == "small", "the narrow one is busy"
        narrow._running = None
        assert takes(wide) is None
        assert takes(narrow) == "another"


class Filling(Inline):
    """After this job, the ledger's disk is full for a while."""

    def __init__(self, ledger: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(STUB)
        self._ledger, self._monkeypatch, self.runs = ledger, monkeypatch, 0

    def run(self, task: Task, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]) -> Path:
        made = super().run(task, on_progress, wish)
        self.runs += 1
        self._monkeypatch.setattr(self._ledger(), "solved", self._full)
        return made

    def _full(self, *_: object) -> None:
        raise LedgerError("the ledger cannot be written (disk full): check the room on its disk.")


def test_a_job_is_solved_once_though_the_ledgers_disk_is_full_at_its_end(site: Site, make_job, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job()
    submit(site, job)
    with Daemon(site, Filling(lambda: daemon._ledger, monkeypatch)) as daemon:
        (working,) = daemon._slots
        with pytest.raises(LedgerError, match="disk full"):
            daemon.run_once()
        with pytest.raises(LedgerError, match="disk full"):
            working.solve_next()
        monkeypatch.undo()
        assert not working.solve_next()
        assert daemon._ledger.show(job.key).state == "solved"
    assert (site.jobs / job.key / "starts").read_text().split() == ["start"]


def test_a_lost_end_of_a_job_is_found_by_its_result(site: Site, make_job) -> None:
    """The daemon cannot remember it: it was another slot's, or the lease ran out for another reason."""
    job = make_job()
    submit(site, job)
    with Daemon(site, Inline(STUB)) as daemon:
        daemon._take_in()
        assert daemon._ledger.claim(-1.0) is not None
        site.results.mkdir(parents=True)
        (site.results / f"{job.key}.h5").write_bytes(b"whole, for it has its name")
        daemon.run_once()
        assert daemon._ledger.show(job.key).state == "solved"
    assert not (site.jobs / job.key / "starts").exists()


class Meeting(Launcher):
    """Jobs that end only when two of them run at the same time."""

    def __init__(self, place: Place, together: threading.Barrier) -> None:
        self._place, self._together = place, together

    def run(self, task: Task, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]) -> Path:
        self._together.wait(20)
        return Inline(STUB).run(task, on_progress, wish)


def test_two_slots_work_at_the_same_time(site: Site, make_job, until) -> None:
    together = threading.Barrier(2)
    for seed in range(6):
        submit(site, make_job(seed))
    with (
        Daemon(with_slots(site, SlotNumbers(), SlotNumbers()), lambda place: Meeting(place, together)) as daemon,
        at_work(daemon.run),
        open_read_only(site.ledger) as view,
    ):
        until(lambda: len(view.list(state="solved")) == 6)
        assert all(entry.starts == 1 for entry in view.list())


@pytest.mark.system
def test_a_daemon_with_two_warm_groups_and_time_limits(site: Site, make_job, until) -> None:
    """What takes too long fails with its reason, while the other slot goes on; in the end nothing runs."""
    quick, slow = make_job(1), make_job(2, slow=0.5)
    two = with_slots(site, SlotNumbers(ranks=1, time_limit_s=1.0), SlotNumbers(ranks=1, time_limit_s=1.0))

    def launch(place: Place) -> Mpiexec:
        return Mpiexec(site.home / "slots" / place.name, place.ranks, gpus=place.gpus, limit_s=place.limit_s, solve=STUB)

    for job in (quick, slow):
        submit(site, job)
    with Daemon(two, launch) as daemon, at_work(daemon.run), open_read_only(site.ledger) as view:
        until(lambda: view.list(state="failed") and view.list(state="solved"), 100)
        assert "took longer than the 1 s that its slot allows" in str(view.show(slow.key).sentence)
    assert not list(site.home.glob("slots/*/processes.json"))


class Starting(Inline):
    """Its ranks come when the test says so, or cannot."""

    def __init__(self) -> None:
        super().__init__(STUB)
        self.is_there, self.trouble, self.looks = False, "", 0

    def look(self) -> bool:
        self.looks += 1
        if self.trouble:
            raise RanksAway(self.trouble)
        return self.is_there


def test_a_job_is_not_begun_before_there_are_ranks_for_it(site: Site, make_job, until) -> None:
    launcher, job = Starting(), make_job()
    submit(site, job)
    with Daemon(site, launcher) as daemon, at_work(daemon.run):
        until(lambda: launcher.looks > 5)
        assert daemon._ledger.show(job.key).starts == 0
        launcher.is_there = True
        until(lambda: daemon._ledger.show(job.key).state == "solved")


def test_ranks_that_never_come_are_told_by_the_slot_and_by_the_job_that_meets_them(site: Site, make_job, caplog) -> None:
    class Away(Starting):
        def run(self, task: Task, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]) -> Path:
            raise RanksAway(self.trouble)

    launcher, job = Away(), make_job()
    launcher.trouble = "there is no mpiexec: install mpich."
    submit(site, job)
    with Daemon(site, launcher) as daemon:
        (working,) = daemon._slots
        daemon._take_in()
        assert [working.is_ready() for _ in range(3)] == [False, False, True]
        assert working.trouble == launcher.trouble
        assert working.solve_next()
        waits = daemon._ledger.show(job.key)
        assert (waits.state, waits.tries) == ("queued", 0)
        assert "there is no mpiexec: install mpich. The job waits for this to be mended" in str(waits.sentence)
        launcher.trouble, launcher.is_there = "", True
        assert working.is_ready()
        assert working.trouble is None
    assert caplog.text.count("slot 1: there is no mpiexec") == 1


def test_a_job_whose_time_is_up_keeps_its_checkpoint_for_a_retry(site: Site, make_job) -> None:
    class Late(Inline):
        def run(self, task: Task, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]) -> Path:
            (task.folder / "checkpoint.20.0.npz").touch()
            raise TimeIsUp("the job took longer than its slot allows.")

    job = make_job()
    submit(site, job)
    with Daemon(site, Late(STUB)) as daemon:
        daemon.run_once()
        assert daemon._ledger.show(job.key).state == "failed"
    assert (site.jobs / job.key / "checkpoint.20.0.npz").exists()
