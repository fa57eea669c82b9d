"""Two processes for one card: the lock says who has it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ptyplugin.api import card_lock
from ptyplugin.api.card_lock import CardLock
from ptyplugin.model import DeviceError
from ptyplugin.solvers.driver import Card

CARD = Card(0, "a card", "11111111-2222-3333-4444-555555555555", 10**9, (9, 0))
HOLD = """
import sys, pathlib
from ptyplugin.api import card_lock
from ptyplugin.solvers.driver import Card
card_lock.FOLDER = pathlib.Path(sys.argv[1])
print(card_lock.CardLock(0).take(Card(0, "a card", sys.argv[2], 10**9, (9, 0))), flush=True)
sys.stdin.read()
"""

#: What another program sees: who has the lock, or nothing.
LOOK = """
import fcntl, sys
with open(sys.argv[1]) as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print(file.read())
"""


def holder_of(folder: Path) -> str:
    words = [sys.executable, "-S", "-c", LOOK, folder / f"{CARD.uuid}.lock"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(card_lock, "FOLDER", tmp_path / "locks")
    monkeypatch.setattr(card_lock, "LOOK_S", 0.01)
    return tmp_path / "locks"


def test_who_has_the_card_is_said_and_its_end_frees_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, folder, CARD.uuid], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "\n"
    mine = CardLock(wait_s=0.05)
    said = mine.take(CARD)
    assert said.startswith(f"process {holder.pid} since 20")
    assert f"GPU 0, a card is in use by {said}; waiting up to 0.05 s" in caplog.text
    holder.kill()
    holder.communicate()
    assert mine.take(CARD) == ""
    assert holder_of(folder).startswith(f"process {os.getpid()} since 20")
    mine.release()
    assert holder_of(folder) == ""


def test_one_process_may_use_its_card_twice(folder: Path) -> None:
    first, second = CardLock(0), CardLock(0)
    assert (first.take(CARD), second.take(CARD)) == ("", "")
    first.release()
    first.release()
    assert f"process {os.getpid()}" in holder_of(folder)
    second.release()
    assert holder_of(folder) == ""


def test_other_users_may_lock_it_too(folder: Path) -> None:
    lock = CardLock(0)
    lock.take(CARD)
    assert folder.stat().st_mode & 0o7777 == 0o1777
    assert (folder / f"{CARD.uuid}.lock").stat().st_mode & 0o777 == 0o666
    lock.release()


def test_a_link_in_the_place_of_a_lock_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (folder / f"{CARD.uuid}.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(DeviceError, match="cannot be written"):
        CardLock(0).take(CARD)
    assert not (tmp_path / "precious").exists()


def test_of_several_cards_the_first_that_is_free_is_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    second = replace(CARD, number=1, uuid="2")
    monkeypatch.setattr(card_lock, "_take", lambda uuid: "process 7" if uuid == CARD.uuid else "")
    monkeypatch.setattr(card_lock, "LOOK_S", 60.0)
    assert CardLock(wait_s=60).take_free([CARD, second]) == (second, "")
    monkeypatch.setattr(card_lock, "_take", lambda uuid: f"process {uuid[0]}")
    assert CardLock(0).take_free([CARD, second])[1] == "GPU 0, a card is in use by process 1; GPU 1, a card is in use by process 2"


def test_a_full_disk_is_no_reason_not_to_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, text: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(card_lock.os, "write", full)
    lock = CardLock(0)
    assert lock.take(CARD) == ""
    lock.release()
    assert CARD.uuid not in card_lock._held


def test_a_lock_that_cannot_be_locked_is_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(card_lock.fcntl, "flock", no_locks)
    with pytest.raises(DeviceError, match=r"cannot be locked \(No locks available\)"):
        CardLock(0).take(CARD)


def test_what_others_wrote_cannot_steer_a_terminal(folder: Path) -> None:
    folder.mkdir()
    (folder / f"{CARD.uuid}.lock").write_bytes(b"\x1b[2Jprocess 7\nall is well")
    with open(folder / f"{CARD.uuid}.lock") as file:
        card_lock.fcntl.flock(file, card_lock.fcntl.LOCK_EX)
        assert CardLock(0).take(CARD) == "[2Jprocess 7"


def test_garbage_lets_go_of_its_card_in_the_middle_of_a_taking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread holds the guard then."""
    second = replace(CARD, number=1, uuid="2")
    garbage, opened = CardLock(0), card_lock._opened
    garbage.take(second)

    def collecting(path: Path) -> int:
        garbage.release()
        return opened(path)

    monkeypatch.setattr(card_lock, "_opened", collecting)
    mine = CardLock(0)
    assert mine.take(CARD) == ""
    assert set(card_lock._held) == {CARD.uuid}
    mine.release()
