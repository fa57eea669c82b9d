"""Copies of large arrays: right, safe, and out of a stock that is bounded."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.callbacks import copying
from ptyplugin.callbacks.copying import Copier


def image(seed: int, side: int = 512) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 1000, (side, side), dtype=np.uint16)


def in_stock(copier: Copier) -> dict[int, int]:
    return {size: len(pieces) for size, pieces in copier._stock.items()}


def test_copies_from_the_stock_are_right_and_share_nothing() -> None:
    copier, images = Copier(), [image(seed) for seed in range(40)]
    copies = []
    for one in images:
        copies.append(copier({"data": {"det": one}})["data"]["det"])
        copier.refill()
    for number, copy in enumerate(copies):
        np.testing.assert_array_equal(copy, image(number))
        assert copy.dtype == np.uint16
        assert copy.flags.writeable
        assert not np.shares_memory(copy, images[number])
    for copy in copies[1:]:
        copy[...] = 0
    np.testing.assert_array_equal(copies[0], image(0))


def test_the_second_copy_comes_from_the_stock() -> None:
    copier, size = Copier(), image(0).nbytes
    copier(image(0))
    assert in_stock(copier) == {size: 0}
    copier.refill()
    held = in_stock(copier)[size]
    assert held * size <= copying._STOCK
    copier(image(1))
    assert in_stock(copier) == {size: held - 1}


def test_an_empty_stock_is_no_trouble() -> None:
    copier = Copier()
    copier(image(0))
    copier.refill()
    for seed in range(copying._MOST + 5):
        np.testing.assert_array_equal(copier(image(seed)), image(seed))


def test_the_stock_is_bounded_in_sizes() -> None:
    copier = Copier()
    for side in range(300, 320):
        copier(image(0, side))
        copier.refill()
    assert list(in_stock(copier)) == [image(0, side).nbytes for side in range(316, 320)]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((600, 600), np.uint16)[::2, ::-1],
        np.asfortranarray(np.arange(90_000.0).reshape(300, 300)),
        np.ma.masked_equal(np.arange(90_000.0), 3.0),
        np.array([{"a": [1]}] * 40_000, dtype=object),
        np.zeros(40_000, dtype=[("a", "<i4"), ("b", "S3")]),
        np.zeros(0),
        np.array(5.0),
    ],
    ids=["strided", "fortran", "masked", "objects", "records", "empty", "number"],
)
def test_every_kind_of_array_is_copied(array: NDArray[np.generic]) -> None:
    copier = Copier()
    for _ in range(2):
        copy = copier(array)
        copier.refill()
        assert type(copy) is type(array)
        assert copy.dtype == array.dtype
        np.testing.assert_array_equal(copy, array)
        assert not np.shares_memory(copy, array)
