"""The GPUs that a rank keeps while it is warm: no second group, and nobody else with ptyplugin, gets them meanwhile."""

from __future__ import annotations

from ptyplugin.api.card_lock import CardLock
from ptyplugin.model import DeviceBusy, DeviceError
from ptyplugin.solvers.driver import drivers_cards


class Cards:
    """Those of one rank: ranks take by turns what they see; a card that several share is kept by the first of them."""

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size
        self._lock, self._kept = CardLock(), set[str]()

    def hold(self) -> None:
        """Take them, if that has not been done; the system lets go of them when this process ends.

        Raises:
            DeviceBusy: another process has one.
            DeviceError: there is none.
        """
        driver = drivers_cards()
        if not driver.cards:
            raise DeviceError(f"the slot's GPUs cannot be used: {driver.trouble}.")
        for card in driver.cards[self._rank :: self._size]:
            if card.uuid not in self._kept:
                if holder := self._lock.take(card):
                    raise DeviceBusy(f"{card} is in use by {holder}.")
                self._kept.add(card.uuid)
