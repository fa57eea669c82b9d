"""The process variables over Channel Access, in a thread of its own. Images are for PVAccess."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

# Channel Access reads its settings from the environment when it is imported or made.
if not os.environ.get("EPICS_CAS_INTF_ADDR_LIST"):
    # Nobody outside of this machine is told of it.
    os.environ.setdefault("EPICS_CAS_AUTO_BEACON_ADDR_LIST", "NO")
    os.environ.setdefault("EPICS_CAS_BEACON_ADDR_LIST", "127.0.0.1")
if os.environ.get("EPICS_CAS_SERVER_PORT"):
    # Caproto's server looks at the clients' variable only; other servers take their own first.
    os.environ["EPICS_CA_SERVER_PORT"] = os.environ["EPICS_CAS_SERVER_PORT"]
# As long as it is 10 ms, its default, each update waits so long for others.
os.environ.setdefault("CAPROTO_SERVER_HIGH_LOAD_TIMEOUT_SEC", "0.001")

from caproto import AccessRights, ChannelChar, ChannelData, ChannelDouble, ChannelEnum, ChannelInteger, ChannelString, SkipWrite
from caproto.asyncio.server import Context

from ptyplugin.service.epics.records import CANCEL, CANCEL_CHOICES, LONG_TEXT, RECORDS, Reading, Record

_log = logging.getLogger(__name__)

_LOOPBACK = ["127.0.0.1"]
_START_S, _END_S = 10.0, 2.0
#: Status of a value with a severity: the state of the device, as records of EPICS say it.
_STATE_ALARM = 7


class _ReadOnly(ChannelData):
    def check_access(self, hostname: str, username: str) -> AccessRights:
        """Nobody writes."""
        return AccessRights.READ


class _Enum(_ReadOnly, ChannelEnum): ...


class _Integer(_ReadOnly, ChannelInteger): ...


class _Number(_ReadOnly, ChannelDouble): ...


class _Text(_ReadOnly, ChannelString): ...


class _LongText(_ReadOnly, ChannelChar): ...


class _Cancel(ChannelEnum):
    """Cancels when its second choice is put to it, and stays at its first."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        super().__init__(value=CANCEL_CHOICES[0], enum_strings=CANCEL_CHOICES)
        self._cancel = cancel

    async def verify_value(self, data: Any) -> Any:
        """Somebody put something."""
        if await super().verify_value(data) == CANCEL_CHOICES[1]:
            await asyncio.get_running_loop().run_in_executor(None, self._cancel)
        raise SkipWrite


class CaServer:
    """Serves all records under ``prefix``; cancel: is called when somebody asks for it."""

    def __init__(self, prefix: str, cancel: Callable[[], None]) -> None:
        # Beacons that nobody hears, and puts that are refused and told to who made them.
        logging.getLogger("caproto").setLevel(logging.CRITICAL)
        self._channels = {record.name: _channel(record, cancel) for record in RECORDS}
        self._database = {prefix + name: channel for name, channel in self._channels.items()}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="ptyplugin-ca", daemon=True)
        self._thread.start()
        self._ready.wait(_START_S)

    def post(self, changed: Mapping[str, Reading], time_s: float) -> None:
        """These values are new, at this Unix time."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._write(dict(changed), time_s), self._loop).result(_START_S)

    def close(self) -> None:
        """Stop serving."""
        if self._thread.is_alive() and self._task:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(_END_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:
            _log.warning("Channel Access is not served (%s): PVAccess is.", error)
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        context = Context(self._database, None if os.environ.get("EPICS_CAS_INTF_ADDR_LIST") else _LOOPBACK)
        self._task = asyncio.create_task(context.run())
        while context.port is None and not self._task.done():
            await asyncio.sleep(0.01)
        for listening in context.tcp_sockets.values():
            # Connections inherit it: small answers do not wait for acknowledgements of those before.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ready.set()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    async def _write(self, changed: dict[str, Reading], time_s: float) -> None:
        for name, reading in changed.items():
            channel = self._channels[name]
            value = channel.enum_strings[reading.value] if isinstance(channel, ChannelEnum) else reading.value
            status = _STATE_ALARM if reading.severity else 0
            await channel.write(value, verify_value=False, timestamp=time_s, status=status, severity=reading.severity)


def _channel(record: Record, cancel: Callable[[], None]) -> ChannelData:
    if record.name == CANCEL:
        return _Cancel(cancel)
    if record.kind == "enum":
        return _Enum(value=record.choices[0], enum_strings=record.choices)
    if record.kind == "text":
        return _Text(value=record.start, string_encoding="utf-8")
    if record.kind == "long text":
        return _LongText(value=record.start, max_length=LONG_TEXT, string_encoding="utf-8")
    kind = _Integer if record.kind == "integer" else _Number
    low, high = record.limits
    return kind(value=record.start, units=record.unit, lower_disp_limit=low, upper_disp_limit=high)
