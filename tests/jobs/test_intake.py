"""Taking in: bad items are set aside with a sentence, and a kill at any step loses and doubles nothing."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ptyplugin.jobs import Inbox, Intake, Ledger, intake, submit
from ptyplugin.model import Job, Refusal, RunSource, Site


@pytest.fixture
def ledger(site: Site) -> Iterator[Ledger]:
    with Ledger(site.ledger) as ledger:
        yield ledger


@pytest.fixture
def take_in_all(site: Site, ledger: Ledger) -> Callable[[], list[str | None]]:
    def take_in_all() -> list[str | None]:
        box = Inbox(site.inbox)
        take = Intake(box, ledger, site.jobs)
        take.clean()
        return [take.take_in(item) for item in box.waiting()]

    return take_in_all


def test_a_job_gets_its_folder_and_its_row(site, ledger, take_in_all, beside_job) -> None:
    job, arrays = beside_job
    submit(site, job, arrays)
    assert take_in_all() == [job.key]
    folder = site.jobs / job.key
    assert Job.from_bytes((folder / "job.json").read_bytes()) == job
    assert np.array_equal(np.load(folder / "frames.npy"), arrays["frames.npy"])
    entry = ledger.show(job.key)
    assert (entry.state, entry.run_uid, entry.scan_id, entry.frames, entry.recipe) == ("queued", "run-1", 7, 3, "DM(20)")
    assert Inbox(site.inbox).waiting() == []


def test_a_job_submitted_twice_is_taken_in_once(site, ledger, take_in_all, job) -> None:
    submit(site, job)
    submit(site, job)
    assert take_in_all() == [job.key, job.key]
    assert [entry.key for entry in ledger.list()] == [job.key]
    assert len(ledger.history(job.key)) == 1


def test_a_refusal_is_a_failed_job_with_its_reason(site, ledger, take_in_all, caplog) -> None:
    refusal = Refusal(beamline="sim", source=RunSource(run_uid="u", key="detector"), reason="no frames arrived.")
    submit(site, refusal)
    take_in_all()
    (entry,) = ledger.list(run_uid="u", purpose="final")
    assert (entry.state, entry.kind, entry.sentence) == ("failed", "refusal", "no frames arrived.")
    assert "run u (scan None) was refused: no frames arrived." in caplog.text


def _tear_job(item: Path) -> None:
    (item / "job.json").write_bytes((item / "job.json").read_bytes()[:50])


def _remove_job(item: Path) -> None:
    (item / "job.json").unlink()


def _change_array(item: Path) -> None:
    np.save(item / "frames.npy", np.zeros((3, 128, 128), np.uint16))


def _remove_array(item: Path) -> None:
    (item / "frames.npy").unlink()


def _link_array(item: Path) -> None:
    (item / "frames.npy").rename(item.parent.parent / "elsewhere.npy")
    (item / "frames.npy").symlink_to(item.parent.parent / "elsewhere.npy")


def _pipe_for_job(item: Path) -> None:
    (item / "job.json").unlink()
    os.mkfifo(item / "job.json")


def _folder_for_job(item: Path) -> None:
    (item / "job.json").unlink()
    (item / "job.json").mkdir()


def _another_job(item: Path) -> None:
    job = Job.from_bytes((item / "job.json").read_bytes())
    (item / "job.json").write_bytes(job.model_copy(update={"seed": 99}).to_bytes())


def _no_number(item: Path) -> None:
    (item / "job.json").write_bytes((item / "job.json").read_bytes().replace(b'"distance_m":2.0', b'"distance_m":NaN'))


def _number_of_100_bits(item: Path) -> None:
    (item / "job.json").write_bytes((item / "job.json").read_bytes().replace(b'"scan_id":7', b'"scan_id":%d' % 2**100))


def _deep_nesting(item: Path) -> None:
    (item / "job.json").write_bytes(b"[" * 1_000_000)


def _long_name(item: Path) -> None:
    (item / "job.json").write_bytes((item / "job.json").read_bytes().replace(b'"frames.npy"', b'"%s.npy"' % (b"a" * 300)))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_tear_job, "cannot be read"),
        (_remove_job, "No such file"),
        (_change_array, "sha256 differs"),
        (_remove_array, "No such file"),
        (_link_array, "symbolic links"),
        (_pipe_for_job, "no plain file"),
        (_folder_for_job, "no plain file"),
        (_another_job, "not the one in its name"),
        (_no_number, "cannot be"),
        (_number_of_100_bits, "64 bits"),
        (_deep_nesting, "cannot be read"),
        (_long_name, "name too long"),
    ],
)
def test_a_spoilt_item_is_set_aside_and_heals_when_submitted_again(site, ledger, take_in_all, beside_job, spoil, says) -> None:
    job, arrays = beside_job
    submit(site, job, arrays)
    (item,) = Inbox(site.inbox).waiting()
    spoil(item)
    assert take_in_all() == [job.key]
    entry = ledger.show(job.key)
    assert (entry.state, entry.kind) == ("failed", "unreadable")
    assert entry.sentence is not None
    assert says in entry.sentence
    assert not list(site.jobs.glob(".*"))
    kept = [path for path in (site.inbox / "bad").iterdir() if path.name.startswith(job.key)]
    assert [path.read_text().strip() for path in kept if path.suffix == ".txt"] == [entry.sentence]
    assert sum(path.is_dir() for path in kept) == 1
    submit(site, job, arrays)
    assert take_in_all() == [job.key]
    assert ledger.show(job.key).state == "queued"


def test_a_spoilt_copy_does_not_touch_the_job_that_is_known(site, ledger, take_in_all, job) -> None:
    submit(site, job)
    take_in_all()
    submit(site, job)
    _tear_job(Inbox(site.inbox).waiting()[0])
    take_in_all()
    assert ledger.show(job.key).state == "queued"


def test_too_large_is_refused(site, ledger, take_in_all, beside_job, monkeypatch) -> None:
    job, arrays = beside_job
    submit(site, job, arrays)
    monkeypatch.setattr(intake, "_ARRAY_LIMIT_BYTES", 1000)
    take_in_all()
    assert "more than the 1000 that are taken" in str(ledger.show(job.key).sentence)


@pytest.mark.parametrize("name", ["note.txt", "x" * 255, "b\udcff"], ids=["plain", "long", "not-utf8"])
def test_foreign_files_are_set_aside(site, ledger, take_in_all, job, name, caplog) -> None:
    submit(site, job)
    (site.inbox / "new" / name).write_text("hello")
    (site.inbox / "new" / "link").symlink_to(site.inbox / "new" / name)
    assert Counter(take_in_all()) == Counter([job.key, None, None])
    assert len(list((site.inbox / "bad").glob("*.txt"))) >= 2
    assert Inbox(site.inbox).waiting() == []
    assert len(ledger.list()) == 1
    assert caplog.text.encode(), "what is logged is text, whatever the name"


def test_a_spoilt_item_that_cannot_be_moved_leaves_nothing_at_each_try(site, ledger, take_in_all, job, monkeypatch) -> None:
    submit(site, job)
    (item,) = Inbox(site.inbox).waiting()
    _tear_job(item)

    def locked(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("ptyplugin.jobs.inbox.move", locked)
        for _ in range(3):
            with pytest.raises(PermissionError):
                take_in_all()
    assert list((site.inbox / "bad").iterdir()) == []
    assert len(ledger.history(job.key)) == 1
    take_in_all()
    assert len(list((site.inbox / "bad").iterdir())) == 2


#: Numbers of the step at which the taker is killed; taking one item in does 40 to 60 of them.
_STEPS = range(1, 200)


def test_a_kill_at_any_step_loses_and_doubles_nothing(site, beside_job) -> None:
    job, arrays = beside_job
    for step in _STEPS:
        again = job.model_copy(update={"seed": step})
        submit(site, again, arrays)
        killed = _take_in_and_be_killed(site, step)
        with Ledger(site.ledger) as ledger:
            box = Inbox(site.inbox)
            take = Intake(box, ledger, site.jobs)
            take.clean()
            for item in box.waiting():
                take.take_in(item)
            assert [entry.state for entry in ledger.list() if entry.key == again.key] == ["queued"]
            assert len(ledger.history(again.key)) == 1
            assert len(ledger.list()) == step
        assert {path.name for path in (site.jobs / again.key).iterdir()} == {"job.json", "frames.npy"}
        assert box.waiting() == []
        if not killed:
            break
    assert not killed
    assert step > 20


def _take_in_and_be_killed(site: Site, step: int) -> bool:
    """Take in as a process that ends at once when it opens, makes, renames or removes something for the ``step``-th time."""
    child = os.fork()
    if child == 0:
        left = [step]

        def hook(event: str, _: object) -> None:
            if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir", "sqlite3.connect"):
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)

        try:
            ledger = Ledger(site.ledger)
            box = Inbox(site.inbox)
            sys.addaudithook(hook)
            for item in box.waiting():
                Intake(box, ledger, site.jobs).take_in(item)
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9
