"""Which device computes: judged from what a driver and CuPy say, here ones that are not there."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptyplugin.model import DeviceBusy, DeviceError, SolverError
from ptyplugin.solvers import OneRank, driver
from ptyplugin.solvers.devices import Devices, choose, look, why_not
from ptyplugin.solvers.driver import Card, Cupy, Driver, ask_cupy, ask_driver
from ptyplugin.solvers.ranks import MpiRanks

H200 = Card(0, "NVIDIA H200", "11111111-0000-0000-0000-000000000000", 150 * 10**9, (9, 0), (1,))
SECOND = replace(H200, number=1, uuid="22222222-0000-0000-0000-000000000000", peers=(0,))
V100 = Card(0, "Tesla V100", "33333333-0000-0000-0000-000000000000", 16 * 10**9, (7, 0))
THERE = Driver("580.65.06", (13, 0), (H200, SECOND))
LIBRARIES = {"cupy": "14.2.0", "nvrtc": "13.0", "cufft": "12.0.0", "nccl": "2.27.7"}
CUPY = Cupy({"cupy-cuda13x": "14.2.0"}, 13, LIBRARIES)
CUPY12 = Cupy({"cupy-cuda12x": "14.2.0"}, 12, LIBRARIES)


def without(*names: str, cupy: Cupy = CUPY) -> Cupy:
    return replace(cupy, versions={n: v for n, v in LIBRARIES.items() if n not in names}, troubles=dict.fromkeys(names, "not found"))


@pytest.mark.parametrize(
    ("there", "cupy", "words"),
    [
        (Driver(trouble="there is no NVIDIA card or driver"), Cupy(), "there is no NVIDIA card or driver"),
        (THERE, without("cupy", cupy=Cupy()), "CuPy is not installed: pip install 'ptyplugin[gpu-cuda13]'"),
        (THERE, without("cupy"), "cupy-cuda13x 14.2.0 cannot be imported (not found): pip install 'ptyplugin[gpu-cuda13]'"),
        (THERE, without("cufft"), "cuFFT was not found: pip install 'ptyplugin[gpu-cuda13]'"),
        (THERE, without("cufft", "nvrtc"), "NVRTC, CUDA's compiler, and cuFFT were not found: pip install 'ptyplugin[gpu-cuda13]'"),
        (
            Driver("550.54.15", (12, 4), (H200,)),
            CUPY,
            "CuPy is built for CUDA 13, the driver 550.54.15 serves CUDA 12: "
            "pip uninstall cupy-cuda13x, then pip install 'ptyplugin[gpu-cuda12]'",
        ),
        (
            replace(THERE, cards=(V100,)),
            CUPY,
            "GPU 0, Tesla V100 (compute capability 7.0) is too old for CuPy's CUDA 13: "
            "pip uninstall cupy-cuda13x, then pip install 'ptyplugin[gpu-cuda12]'",
        ),
        (replace(THERE, cards=(V100,)), without("cupy", cupy=Cupy()), "CuPy is not installed: pip install 'ptyplugin[gpu-cuda12]'"),
        (Driver("470.1", (11, 4), (V100,)), CUPY12, "GPU 0, Tesla V100 needs a newer driver: 470.1 serves CUDA 11.4, CUDA 12 is the least"),
        (
            THERE,
            replace(CUPY, packages={"cupy-cuda13x": "14", "cupy-cuda12x": "13"}),
            "several packages bring CuPy (cupy-cuda12x, cupy-cuda13x): pip uninstall them all, then pip install 'ptyplugin[gpu-cuda13]'",
        ),
        (THERE, CUPY, ""),
        (THERE, without("nccl"), ""),
        (replace(THERE, cards=(V100,)), CUPY12, ""),
    ],
)
def test_what_is_missing_is_named_with_the_line_that_mends_it(there: Driver, cupy: Cupy, words: str) -> None:
    assert why_not(Devices(there, cupy)) == words


def test_an_old_card_beside_a_new_one_is_left_out() -> None:
    both = Devices(replace(THERE, cards=(V100, SECOND)), CUPY)
    assert both.usable == (SECOND,)
    assert Devices(both.driver, CUPY12).usable == (V100, SECOND)


class Rank(OneRank):
    """One of several."""

    def __init__(self, rank: int, size: int, others_have: bool = True) -> None:
        self.rank, self.size, self._others_have = rank, size, others_have

    def largest(self, value: int) -> int:
        return max(value, int(not self._others_have))


def chosen(wish: Any, ranks: Any = None, held: dict[int, str] | None = None, devices: Any = None, opens: Any = str) -> Any:
    """The choice, its device being the text of the card's number."""
    there = devices or Devices(THERE, CUPY)

    def take(cards: Sequence[Card]) -> tuple[Card | None, str]:
        holders = {card: (held or {}).get(card.number, "") for card in cards}
        free = [card for card in cards if not holders[card]]
        return (free[0], "") if free else (None, "; ".join(f"{card} is in use by {holder}" for card, holder in holders.items()))

    return choose(wish, ranks or OneRank(), take, opens, lambda: there)


def test_auto_takes_a_card_that_is_free() -> None:
    assert (chosen("auto").card, chosen("auto").device) == (H200, "0")
    busy = chosen("auto", held={0: "process 7 since noon"})
    assert (busy.card, busy.sharing) == (SECOND, 1)
    assert str(busy) == "GPU 1, NVIDIA H200"


def test_auto_says_in_one_line_why_it_is_the_processor(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    choice = chosen("auto", held={0: "process 7 since noon", 1: "process 8 since one"})
    assert choice.device is None
    assert str(choice) == (
        "CPU (GPU 0, NVIDIA H200 is in use by process 7 since noon; GPU 1, NVIDIA H200 is in use by process 8 since one)"
    )
    assert f"computing on {choice}" in caplog.text
    nothing = chosen("auto", devices=Devices(Driver(trouble="there is no NVIDIA card or driver"), Cupy()))
    assert str(nothing) == "CPU (there is no NVIDIA card or driver)"


def test_gpu_without_one_is_an_error_that_names_what_is_missing() -> None:
    with pytest.raises(DeviceError, match=r"cuFFT was not found: pip install 'ptyplugin\[gpu-cuda13\]'; or use device cpu\.") as missing:
        chosen("gpu", devices=Devices(THERE, without("cufft")))
    assert not isinstance(missing.value, DeviceBusy)
    nothing = Devices(Driver(trouble="there is no NVIDIA card or driver"), Cupy())
    with pytest.raises(
        DeviceError, match=r"no NVIDIA card or driver; nor is CuPy installed: pip install 'ptyplugin\[gpu-cuda13\]'; or use"
    ):
        chosen("gpu", devices=nothing)
    with pytest.raises(DeviceError, match=r"there is no NVIDIA card or driver; or use device cpu\."):
        chosen("gpu", devices=replace(nothing, cupy=Cupy({"cupy-cuda13x": "14.2.0"}, 13)))
    with pytest.raises(DeviceBusy, match="GPU 0, NVIDIA H200 is in use by process 7"):
        chosen("gpu", held={0: "process 7", 1: "process 8"})


def test_cpu_asks_nobody() -> None:
    def never(*what: object) -> Any:
        raise AssertionError("asked")

    assert str(choose("cpu", OneRank(), str, never, never)) == "CPU"


def test_a_card_that_cannot_be_opened_is_passed_by() -> None:
    def opens(number: int) -> Any:
        if number == 0:
            raise SolverError("its memory is full.")
        return str(number)

    assert chosen("auto", opens=opens).card == SECOND
    only = Devices(replace(THERE, cards=(H200,)), CUPY)
    assert "GPU 0, NVIDIA H200 cannot be used (its memory is full)" in str(chosen("auto", devices=only, opens=opens))


class Far(MpiRanks):
    """Rank 5 of 8, the second of 4 on its machine. other: why rank 1 has no GPU"""

    def __init__(self, other: str = "") -> None:
        self.rank, self.size, self.other = 5, 8, other

    def on_this_machine(self) -> tuple[int, int]:
        return 1, 4

    def largest(self, value: int) -> int:
        return max(value, int(bool(self.other)))

    def tell(self, text: str) -> list[str]:
        return ["", self.other, "", "", "", text, "", ""]


def test_ranks_have_cards_by_turns() -> None:
    three = [chosen("auto", Rank(rank, 3)) for rank in range(3)]
    assert [(one.card.number, one.sharing) for one in three] == [(0, 2), (1, 2), (0, 2)]
    on_another_machine = chosen("auto", Far())
    assert (on_another_machine.card, on_another_machine.sharing) == (SECOND, 2)


def test_the_first_rank_on_a_card_takes_it_for_all() -> None:
    taken = []

    def take(cards: Sequence[Card]) -> tuple[Card | None, str]:
        taken.append(cards[0].number)
        return (None, "process 7 has it") if len(taken) > 2 else (cards[0], "")

    four = [choose("auto", Rank(rank, 4), take, str, lambda: Devices(THERE, CUPY)) for rank in range(4)]
    assert [one.card.number for one in four if one.card] == [0, 1, 0, 1]
    assert taken == [0, 1]


def test_all_ranks_compute_on_gpus_or_none() -> None:
    assert str(chosen("auto", Rank(0, 2, others_have=False))) == "CPU (another rank has no GPU)"
    assert str(chosen("auto", Far("CuPy is not installed"))) == "CPU (rank 1 has no GPU: CuPy is not installed)"


def test_without_nccl_several_cards_are_slower() -> None:
    devices = Devices(THERE, without("nccl"))
    assert "pip install 'ptyplugin[gpu-cuda13]' brings it" in chosen("auto", Rank(0, 2), devices=devices).slower
    assert chosen("auto", devices=devices).slower == ""
    assert chosen("auto", Rank(0, 2)).slower == ""


FAKE = r"""
#include <cstddef>
#include <cstring>
#include <cstdlib>
extern "C" {
int cuDriverGetVersion(int* version) { *version = 12080; return 0; }
int cuInit(unsigned) { const char* error = getenv("FAKE_CUINIT"); return error ? atoi(error) : 0; }
int cuDeviceGetCount(int* count) { *count = 2; return 0; }
int cuDeviceGet(int* device, int number) { *device = 10 + number; return 0; }
int cuDeviceGetName(char* name, int, int device) { strcpy(name, device == 10 ? "Card A" : "Card B"); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = (size_t)(device - 9) << 34; return 0; }
int cuDeviceGetUuid(unsigned char* uuid, int device) { for (int i = 0; i < 16; i++) uuid[i] = device * 16 + i; return 0; }
int cuDeviceGetAttribute(int* value, int which, int device) { *value = which == 75 ? device - 3 : 5; return 0; }
int cuDeviceCanAccessPeer(int* can, int device, int peer) { *can = device < peer; return 0; }
int cuGetErrorName(int error, const char** name) { *name = error == 100 ? "CUDA_ERROR_NO_DEVICE" : NULL; return error == 100 ? 0 : 1; }
}
"""


@pytest.fixture(scope="module")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that answers as CUDA's driver does."""
    folder = tmp_path_factory.mktemp("libcuda")
    (folder / "cuda.cpp").write_text(FAKE)
    subprocess.run(["g++", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "cuda.cpp"], check=True)
    return str(folder / "libcuda.so.1")


def test_the_driver_is_asked(fake_driver: str) -> None:
    said = ask_driver(fake_driver)
    assert said.cuda == (12, 8)
    assert said.cards == (
        Card(0, "Card A", "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf", 2**34, (7, 5), (1,)),
        Card(1, "Card B", "b0b1b2b3-b4b5-b6b7-b8b9-babbbcbdbebf", 2**35, (8, 5), ()),
    )


def test_a_driver_without_cards_says_why(fake_driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUINIT", "100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    said = ask_driver(fake_driver)
    assert said.cards == ()
    assert "CUDA_ERROR_NO_DEVICE: no card is visible to this process" in said.trouble
    assert said.trouble.endswith("CUDA_VISIBLE_DEVICES is '7'")
    monkeypatch.setenv("FAKE_CUINIT", "803")
    assert "error 803: the driver's library and its kernel module are of different versions" in ask_driver(fake_driver).trouble


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(driver, "_PCI", tmp_path)
    monkeypatch.setattr(driver, "_KERNEL_MODULE", tmp_path / "version")
    nowhere = str(tmp_path / "libcuda.so.1")
    assert ask_driver(nowhere).trouble == "there is no NVIDIA card or driver"
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "vendor").write_text("0x10de\n")
    (tmp_path / "0000:01:00.0" / "class").write_text("0x030200\n")
    assert "there is an NVIDIA card, but no driver for it" in ask_driver(nowhere).trouble
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n")
    said = ask_driver(nowhere)
    assert said.version == "580.65.06"
    assert "the NVIDIA driver 580.65.06 is there, but" in said.trouble


def test_cupy_is_not_imported_where_there_are_no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*what: object) -> Any:
        raise AssertionError("imported")

    monkeypatch.setattr("ptyplugin.solvers.devices.loaded_cupy", never)
    monkeypatch.setattr("ptyplugin.solvers.devices.drivers_cards", lambda: Driver(trouble="none"))
    assert look().usable == ()


def test_cupy_is_asked_for_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise ImportError("libcufft.so.12: cannot open shared object file")

    monkeypatch.setattr(driver, "_LIBRARIES", {"cupy": lambda: "14.2.0", "cufft": missing})
    said = ask_cupy()
    assert (said.versions, said.troubles) == ({"cupy": "14.2.0"}, {"cufft": "libcufft.so.12: cannot open shared object file"})
    monkeypatch.setattr(driver, "_LIBRARIES", {"cupy": missing, "cufft": lambda: "12.0"})
    assert set(ask_cupy().troubles) == {"cupy"}
