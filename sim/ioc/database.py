"""PVs over Channel Access: made from the device classes that will use them, with put-completion."""

from __future__ import annotations

import enum
import typing
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
from caproto import ChannelChar, ChannelData, ChannelDouble, ChannelEnum, ChannelInteger, ChannelString, SkipWrite

AfterPut = Callable[[Any], Awaitable[None]]

_TEXT_LENGTH = 512
#: Choices of PVs that ophyd-async knows as bool.
YES_NO = ("No", "Yes")


class _Served(ChannelData):
    """A PV whose puts end when what they started has ended.

    after_put: called after the value of a client's put can be read
    """

    after_put: AfterPut | None = None

    async def verify_value(self, data: Any) -> Any:
        """Take what a client put."""
        value = await super().verify_value(data)
        await self.write(value, verify_value=False)
        if self.after_put is not None:
            await self.after_put(plain(self))
        raise SkipWrite


class _Double(_Served, ChannelDouble): ...


class _Integer(_Served, ChannelInteger): ...


class _Enum(_Served, ChannelEnum): ...


class _String(_Served, ChannelString): ...


class _Text(_Served, ChannelChar): ...


def plain(channel: ChannelData) -> Any:
    """The value of a PV as Python has it: int, float, str (the choice of an enum), or an array."""
    value = channel.value
    if isinstance(channel, _Text | _String):
        if isinstance(value, list | tuple):
            value = value[0] if value else ""
        text = value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else bytes(value).decode("latin-1")
        return text.partition("\0")[0]
    if isinstance(channel, _Enum):
        return value if isinstance(value, str) else channel.enum_strings[int(value)]
    return np.asarray(value, dtype=np.float64) if channel.max_length > 1 else value


class Database:
    """PVs by the rest of their name after a prefix; each is there once. What a client puts to X appears in X_RBV where that is."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.channels: dict[str, ChannelData] = {}

    def add(self, name: str, value: Any, *, choices: tuple[str, ...] = (), text: bool = False, length: int = 1, units: str = "") -> None:
        """A new PV. An enum where there are choices, a waveform of characters for long texts, else what the value is."""
        if choices:
            channel: ChannelData = _Enum(value=value, enum_strings=choices)
        elif text:
            channel = _Text(value=value, max_length=_TEXT_LENGTH, string_encoding="latin-1")
        elif isinstance(value, str):
            channel = _String(value=value, string_encoding="latin-1")
        elif isinstance(value, int):
            channel = _Integer(value=value, units=units)
        elif length > 1:
            channel = _Double(value=[0.0, 0.0], max_length=length, units=units)
        else:
            channel = _Double(value=value, units=units, precision=5)
        self.channels[self.prefix + name] = channel
        channel.after_put = self._mirror(name)

    def add_kind(self, name: str, kind: Any) -> None:
        """A new PV for a data type of an ophyd-async signal."""
        if kind is bool:
            self.add(name, YES_NO[0], choices=YES_NO)
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            choices = tuple(member.value for member in kind)
            self.add(name, choices[0], choices=choices)
        else:
            self.add(name, {int: 0, float: 0.0, str: ""}[kind], text=kind is str)

    def add_like(self, name: str, other: str) -> None:
        """A new PV of the kind and value of another."""
        channel = self.channels[self.prefix + other]
        choices = tuple(channel.enum_strings) if isinstance(channel, _Enum) else ()
        self.add(name, plain(channel), choices=choices, text=isinstance(channel, _Text))

    def begin(self, name: str, value: Any) -> None:
        """The value of a PV, and of its readback, before anybody can see it."""
        for each in (name, f"{name}_RBV"):
            if each in self:
                channel = self.channels[self.prefix + each]
                channel._data["value"] = channel.preprocess_value(value)

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.channels

    def __getitem__(self, name: str) -> Any:
        return plain(self.channels[self.prefix + name])

    def is_on(self, name: str) -> bool:
        """Whether a number is not 0, or an enum is not its first choice."""
        channel = self.channels[self.prefix + name]
        return bool(channel.raw_value) if isinstance(channel, _Enum) else bool(plain(channel))

    async def set(self, name: str, value: Any) -> None:
        """Give a PV, and its readback, a value from inside; a number means that choice of an enum."""
        for each in (name, f"{name}_RBV"):
            channel = self.channels.get(self.prefix + each)
            if channel is not None:
                choice = isinstance(channel, _Enum) and not isinstance(value, str)
                await channel.write(channel.enum_strings[int(value)] if choice else value, verify_value=False)

    async def set_units(self, name: str, units: str) -> None:
        """Another unit of a number."""
        await self.channels[self.prefix + name].write_metadata(units=units)

    def limit(self, name: str, low: float, high: float) -> None:
        """Refuse puts of less or more to a number."""
        self.channels[self.prefix + name]._data.update(lower_ctrl_limit=low, upper_ctrl_limit=high)

    def after_put(self, name: str, call: AfterPut, *, mirrored: bool = True) -> None:
        """After a client's put to a PV: its readback follows if ``mirrored``, then ``call``; the put is complete when that is done."""
        self.channels[self.prefix + name].after_put = self._mirror(name, call) if mirrored else call

    def _mirror(self, name: str, call: AfterPut | None = None) -> AfterPut:
        async def mirror(value: Any) -> None:
            readback = self.channels.get(f"{self.prefix}{name}_RBV")
            if readback is not None:
                await readback.write(self.channels[self.prefix + name].value, verify_value=False)
            if call is not None:
                await call(value)

        return mirror


def signals_of(device: Any) -> Iterator[tuple[str, Any]]:
    """PV and data type of each signal of an ophyd-async device that is not connected; its setpoint and its readback apart."""
    for _, child in device.children():
        backend = getattr(child, "_connector", None) and getattr(child._connector, "backend", None)
        if backend is None:
            yield from signals_of(child)
            continue
        for pv in dict.fromkeys((backend.write_pv, backend.read_pv)):
            yield pv.partition("://")[2] or pv, typing.get_origin(backend.datatype) or backend.datatype


def legacy_signals_of(cls: Any, prefix: str) -> Iterator[tuple[str, bool]]:
    """PV of each signal of an ophyd device class, and whether it is read as a text."""
    for component in cls._sig_attrs.values():
        parts = [(component.cls, component.suffix, component.kwargs)]
        if hasattr(component, "defn"):
            parts = list(component.defn.values())
        for kind, suffix, arguments in parts:
            if suffix:
                yield prefix + suffix, bool(arguments.get("string"))
                if kind.__name__ in {"EpicsSignalWithRBV", "EpicsPathSignal"}:
                    yield f"{prefix}{suffix}_RBV", bool(arguments.get("string"))
