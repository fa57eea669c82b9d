"""The IOC's process: Channel Access and PVAccess at the loopback, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptyplugin.model.errors import DeviceError
from ptyplugin.sim.ioc.imperfections import Imperfections

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
#: Ports from the first one on: Channel Access, its repeater, PVAccess.
PORTS = 3
_LOWEST_PORT, _HIGHEST_PORT, _TRIES = 20000, 32000, 50
_MOST_BYTES = 50_000_000
#: Commands of Channel Access.
_REGISTER, _CONFIRM = 24, 17


@dataclass(frozen=True)
class Settings:
    """How to serve.

    port: the first of three, or 0 for free ones
    """

    folder: Path
    prefix: str = "SIM:"
    port: int = 0
    imperfections: Imperfections = field(default_factory=Imperfections)
    faults: dict[str, int] = field(default_factory=dict)
    modes: int = 1
    photons: float = 1e6
    range_m: float = 24e-6
    seed: int = 0


def environment(port: int) -> dict[str, str]:
    """What a client of the IOC at these ports needs in its environment, before it imports any EPICS package."""
    return {
        "EPICS_CA_ADDR_LIST": LOOPBACK,
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": str(port),
        "EPICS_CA_REPEATER_PORT": str(port + 1),
        "EPICS_CA_MAX_ARRAY_BYTES": str(_MOST_BYTES),
        "EPICS_PVA_ADDR_LIST": LOOPBACK,
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_SERVER_PORT": str(port + 2),
        "EPICS_PVA_BROADCAST_PORT": str(port + 2),
    }


def serve(settings: Settings, ready: Callable[[int], None]) -> None:
    """Serve until SIGINT or SIGTERM. ``ready`` is told the first port as soon as clients can connect.

    Raises:
        DeviceError: ports in use.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    port = settings.port or _free_ports()
    if settings.port and not _are_free(port):
        raise DeviceError(f"the ports {port} .. {port + PORTS - 1} at {LOOPBACK} are in use: give another --port, or none for free ones.")
    # Channel Access reads its ports from the environment. Beacons go to the repeater in here and nowhere else.
    os.environ.update(environment(port))
    os.environ.update(
        EPICS_CAS_SERVER_PORT=str(port),
        EPICS_CAS_INTF_ADDR_LIST=LOOPBACK,
        EPICS_CAS_AUTO_BEACON_ADDR_LIST="NO",
        EPICS_CAS_BEACON_ADDR_LIST=LOOPBACK,
        EPICS_CAS_BEACON_PORT=str(port + 1),
        OPHYD_CONTROL_LAYER="dummy",
        # As long as it is 10 ms, its default, each update waits so long for others.
        CAPROTO_SERVER_HIGH_LOAD_TIMEOUT_SEC="0.001",
    )
    # A put that is refused is the client's matter, and is told to it.
    logging.getLogger("caproto").setLevel(logging.CRITICAL)
    asyncio.run(_serve(settings, port, ready))


async def _serve(settings: Settings, port: int, ready: Callable[[int], None]) -> None:
    # Imported here, because they read the environment.
    from caproto.asyncio.server import Context

    from ptyplugin.sim.ioc.beamline import Beamline
    from ptyplugin.sim.ioc.images import Images
    from ptyplugin.sim.ioc.instrument import Instrument

    instrument = Instrument(
        settings.imperfections,
        range_m=settings.range_m,
        modes=settings.modes,
        photons=settings.photons,
        seed=settings.seed,
    )
    images = Images(f"{settings.prefix}Pva1:Image", instrument.shape, port + 2)
    beamline = Beamline(settings.prefix, instrument, images, settings.folder.absolute(), settings.faults)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    repeater, _ = await loop.create_datagram_endpoint(_Repeater, local_addr=(LOOPBACK, port + 1))
    context = Context(beamline.database.channels, [LOOPBACK])
    work = [asyncio.create_task(context.run()), asyncio.create_task(beamline.run())]
    while context.port is None and not work[0].done():
        await asyncio.sleep(0.01)
    for listening in context.tcp_sockets.values():
        # Connections inherit it. Without it each small answer waits for the client's acknowledgement of the one before.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Searches are answered once the servers' tasks have run.
    await asyncio.sleep(0.05)
    ready(port)
    await asyncio.wait([*work, waiting := asyncio.create_task(ended.wait())], return_when=asyncio.FIRST_COMPLETED)
    await beamline.close()
    for task in (*work, waiting):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    repeater.close()
    images.close()


class _Repeater(asyncio.DatagramProtocol):
    """A repeater of Channel Access, so that no client starts one that outlives it: passes beacons on to who registered."""

    def __init__(self) -> None:
        self._clients: set[tuple[str, int]] = set()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if len(data) == 0 or (len(data) >= 2 and struct.unpack(">H", data[:2])[0] == _REGISTER):
            self._clients.add(address)
            local = struct.unpack(">I", socket.inet_aton(LOOPBACK))[0]
            self._transport.sendto(struct.pack(">HHHHII", _CONFIRM, 0, 0, 0, 0, local), address)
            return
        for client in self._clients - {address}:
            self._transport.sendto(data, client)


def _free_ports() -> int:
    rng = random.Random()
    for _ in range(_TRIES):
        port = rng.randrange(_LOWEST_PORT, _HIGHEST_PORT, PORTS)
        if _are_free(port):
            return port
    raise DeviceError(f"no {PORTS} ports in a row are free at {LOOPBACK} between {_LOWEST_PORT} and {_HIGHEST_PORT}: give --port.")


def _are_free(first: int) -> bool:
    for port in range(first, first + PORTS):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                # Clients of PVAccess listen at its UDP port too, and share it.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((LOOPBACK, port))
                except OSError:
                    return False
    return True
