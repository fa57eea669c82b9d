"""Ranks on GPUs: the two parallel words for arrays on devices, and which transport carries them."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.driver import drivers_cards, loaded_cupy
from ptyplugin.solvers.ranks import MpiRanks, RankFailed, Ranks, Window
from ptyplugin.solvers.transports import Lane, Link, Nccl, OnDevice, PinnedLane, Staged, Transport, mpi_knows_cuda, real_parts
from ptyplugin.solvers.verbs import DeviceScalar, Verbs
from ptyplugin.solvers.verbs.cuda.device import Device

_LOG = logging.getLogger(__name__)

_Term = TypeVar("_Term", NDArray[np.float64], NDArray[Any], DeviceScalar)
_Answer = TypeVar("_Answer")


class DeviceRanks:
    """Ranks whose verbs compute on devices. What lies on the host is summed by MPI, as ever.

    Args:
        ranks: how the ranks talk; every sum begins with their vote, so that a rank that fails is not waited for.
        transport: carries sums of arrays on devices.
    """

    def __init__(self, ranks: MpiRanks, transport: Transport) -> None:
        self._ranks, self._transport = ranks, transport
        self.rank, self.size = ranks.rank, ranks.size

    def sum(self, term: _Term) -> _Term:
        array: Any = term.array if isinstance(term, DeviceScalar) else term
        if isinstance(array, np.ndarray):
            self._together(lambda: self._ranks.sum(array))
        else:
            self._transport.prepare()
            self._together(lambda: self._ranks.vote(False))
            self._transport.add(list(real_parts(array)))
        return term

    def sum_canvas(self, num: NDArray[Any], den: NDArray[Any], window: Window) -> tuple[NDArray[Any], NDArray[Any]]:
        """As Ranks has it. Only rows that any rank's window has are summed: elsewhere all are zero."""
        self._transport.prepare()
        rows = self._together(lambda: self._ranks.rows_of_all(window[0]))
        canvases: Any = num[:, rows], den[rows]
        self._transport.add([part for canvas in canvases for part in real_parts(canvas)])
        return num, den

    def largest(self, value: int) -> int:
        return self._together(lambda: self._ranks.largest(value))

    def vote(self, cancel: bool) -> bool:
        return self._together(lambda: self._ranks.vote(cancel))

    def fail(self, sentence: str) -> None:
        try:
            self._transport.abort()
        finally:
            self._ranks.fail(sentence)

    def _together(self, word: Callable[[], _Answer]) -> _Answer:
        """What the ranks agree on by MPI; where one has failed, the cards do not wait for it either."""
        try:
            return word()
        except RankFailed:
            self._transport.abort()
            raise


def ranks_for(verbs: Verbs, ranks: Ranks) -> Ranks:
    """``ranks``, or, where the verbs' arrays lie on a device and there are several, ranks that sum those. All ranks call it together.

    Ranks of another make than MpiRanks are taken as they are.

    Raises:
        RankFailed: another rank has failed.
        SolverError: the device failed.
    """
    device = getattr(verbs, "device", None)
    if device is None or not isinstance(ranks, MpiRanks) or ranks.size == 1:
        return ranks
    return DeviceRanks(ranks, transport_for(ranks, device, link_of(device)))


def transport_for(ranks: MpiRanks, device: Device, link: Link | None) -> Transport:
    """The fastest transport that works for all ranks, each tried with a small sum. All ranks call it together.

    link: None: the device is no card

    Raises:
        RankFailed: another rank has failed.
        SolverError: the device failed.
    """
    reasons = []
    for attempt in (_by_nccl, _by_mpi):
        transport, why = attempt(ranks, device, link)
        if transport is not None:
            break
        reasons.append(why)
    else:
        transport = Staged(ranks, device, lambda: Lane(device) if link is None else PinnedLane(device, link.cuda))
    if ranks.rank == 0:
        _LOG.info("sums over %d ranks: %s%s", ranks.size, transport.name, f" ({'; '.join(reasons)})" if reasons else "")
    return transport


def link_of(device: Device) -> Link | None:
    """What transports need to know of a card; None for what is none."""
    stream, number = (getattr(device, name, None) for name in ("stream", "number"))
    if stream is None or number is None:
        return None
    nccl = importlib.import_module("cupy.cuda.nccl") if "nccl" in loaded_cupy().versions else None
    return Link(importlib.import_module("cupy").cuda, nccl, stream, drivers_cards().cards[number].uuid)


def _by_nccl(ranks: MpiRanks, device: Device, link: Link | None) -> tuple[Transport | None, str]:
    """NCCL, or why not."""
    uuids = ranks.tell(link.uuid if link and link.nccl else "")
    if link is None or not all(uuids):
        return None, "no NCCL on all ranks"
    if len(set(uuids)) < len(uuids):
        return None, "NCCL wants a card for each rank, and some share one"
    unique_id = bytes.fromhex(ranks.tell(_unique_id(link) if ranks.rank == 0 else "")[0])
    if not unique_id:
        return None, "NCCL does not start"
    return _tried(ranks, device, lambda: Nccl(ranks, link, unique_id))


def _unique_id(link: Link) -> str:
    """What all ranks begin with, in hexadecimal digits; nothing where NCCL does not find a network."""
    try:
        return str(link.nccl.get_unique_id().hex())
    except RuntimeError as error:
        _LOG.warning("NCCL does not start: %s", error)
        return ""


def _by_mpi(ranks: MpiRanks, device: Device, link: Link | None) -> tuple[Transport | None, str]:
    """MPI on the memory of devices, or why not."""
    if ranks.largest(int(not mpi_knows_cuda())):
        return None, "MPI does not know GPUs"
    return _tried(ranks, device, lambda: OnDevice(ranks, device))


def _tried(ranks: MpiRanks, device: Device, made: Callable[[], Transport]) -> tuple[Transport | None, str]:
    """A transport that adds ones up right on all ranks, or why there is none."""
    transport, why = None, ""
    try:
        transport = made()
    except RuntimeError as error:  # what NCCL and CUDA raise
        why = str(error)
    refusals = [text for text in ranks.tell(why) if text]
    if transport and not refusals:
        refusals = [text for text in ranks.tell(_trial(ranks, device, transport)) if text]
    if transport and refusals:
        transport.abort()
    return (None, refusals[0]) if refusals else (transport, "")


def _trial(ranks: MpiRanks, device: Device, transport: Transport) -> str:
    """What is wrong with a transport; nothing where it adds ones up right."""
    ones = device.zeros(1, np.float32)
    device.fill(ones, 1)
    try:
        transport.prepare()
        transport.add([ones])
        total = float(device.get(ones)[0])
    except RuntimeError as error:
        return f"{transport.name}: {error}"
    return "" if total == ranks.size else f"{transport.name} made {total:g} of {ranks.size} ones"
