"""Documents that came before the one that says whose they are. There is room for a limited number."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from ptyplugin.callbacks.documents import Document, weight

#: What all waiting documents may need together, bytes.
MOST_BYTES = 256 * 2**20


class Owner(NamedTuple):
    """What a document waits for: a run, descriptor, resource or datum, by its uid."""

    kind: str
    uid: str


class WaitingRoom:
    """Documents by what they wait for. The oldest leave when the room is full."""

    def __init__(self) -> None:
        self._arrived = 0
        self._bytes = 0
        self._documents: OrderedDict[int, tuple[Owner, Document]] = OrderedDict()
        self._numbers: dict[Owner, list[int]] = {}

    def __len__(self) -> int:
        return len(self._documents)

    def hold(self, owner: Owner, document: Document) -> int:
        """Keep a document until its owner is known, or until there is no room; gives the number of those that had to leave."""
        self._arrived += 1
        self._documents[self._arrived] = owner, document
        self._numbers.setdefault(owner, []).append(self._arrived)
        self._bytes += weight(document)
        dropped = 0
        while self._bytes > MOST_BYTES:
            self._drop_oldest()
            dropped += 1
        return dropped

    def release(self, owner: Owner) -> list[Document]:
        """The documents that waited for this owner, in the order in which they came."""
        numbers = self._numbers.pop(owner, [])
        documents = [self._documents.pop(number)[1] for number in numbers]
        self._bytes -= sum(map(weight, documents))
        return documents

    def _drop_oldest(self) -> None:
        number, (owner, document) = self._documents.popitem(last=False)
        self._bytes -= weight(document)
        # The oldest of all is the oldest of its owner.
        self._numbers[owner].remove(number)
        if not self._numbers[owner]:
            del self._numbers[owner]
