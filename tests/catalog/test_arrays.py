"""What comes over the network as an array is what was asked for, or is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from ptyplugin.catalog.arrays import CatalogArray
from ptyplugin.model import CatalogError

VALUES = np.arange(60, dtype=">i4").reshape(10, 2, 3)
INTEGERS = {"kind": "i", "itemsize": 4, "endianness": "big"}


class Server:
    """Gives VALUES, or what ``answer`` makes of it; ``asked`` has the slices."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.cut = 0
        self.http_client = httpx.Client(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.params["slice"])
        part = VALUES[tuple(slice(*map(int, each.split(":"))) for each in self.asked[-1].split(","))]
        assert request.url.params["expected_shape"] == ",".join(map(str, part.shape))
        assert request.url.params["kept"] == "yes"
        return httpx.Response(200, content=part.tobytes()[self.cut :])


def array(server: Server, data_type: Any = INTEGERS) -> CatalogArray:
    structure = {"shape": VALUES.shape, "chunks": [[10], [2], [3]], "dims": None, "data_type": data_type}
    item = {"attributes": {"structure": structure}, "links": {"full": "http://t/array/full/a?kept=yes"}}
    return CatalogArray(SimpleNamespace(http_client=server.http_client), item, "primary/y of run r")


def test_numbers_come_in_the_byte_order_of_the_structure_and_in_few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    numbers = array(server)
    np.testing.assert_array_equal(numbers[2:9], VALUES[2:9])
    np.testing.assert_array_equal(numbers.part((4, 5), (1, 2)), VALUES[4:5, 1:2])
    assert server.asked == ["2:9", "4:5,1:2"]
    monkeypatch.setattr("ptyplugin.catalog.arrays.REQUEST_BYTES", 3 * VALUES[0].nbytes)
    np.testing.assert_array_equal(numbers[2:99], VALUES[2:])
    assert server.asked[2:] == ["2:5", "5:8", "8:10"]
    assert numbers[4:4].shape == (0, 2, 3)


def test_an_answer_of_another_size_is_refused() -> None:
    server = Server()
    server.cut = 4
    with pytest.raises(CatalogError, match="of primary/y of run r the catalog gave 44 bytes instead of 48"):
        array(server)[0:2]


@pytest.mark.parametrize(
    "data_type",
    [
        {"kind": "O", "itemsize": 8, "endianness": "little"},
        {"kind": "i", "itemsize": 5, "endianness": "little"},
        {"kind": "i", "itemsize": 4},
        "int32",
    ],
)
def test_a_type_of_no_numbers_is_refused(data_type: Any) -> None:
    with pytest.raises(CatalogError, match="what the catalog says of primary/y of run r is no array"):
        array(Server(), data_type)
