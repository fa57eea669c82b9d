"""Verbs of a device for tests that hand them NumPy arrays: what is given goes to the device, and what was changed comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cuda.base import Waves


class Seen:
    """Waves that somebody may look at."""

    def __init__(self, do: Any, waves: Waves) -> None:
        self.do, self.waves = do, waves

    @property
    def shape(self) -> tuple[int, ...]:
        return self.waves.shape

    def __len__(self) -> int:
        return len(self.waves)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.do.host(self.waves), dtype=dtype)


class OnHost:
    """``do`` as if it computed on the host."""

    def __init__(self, do: Any) -> None:
        self._do = do

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._do, name)
        if not callable(verb):
            return verb

        def asked(*args: Any, **named: Any) -> Any:
            there = {id(array): self._do.array(array) for array in _arrays(args)}
            gave = verb(*(_given(arg, there) for arg in args), **named)
            for array in _arrays(args):
                if array.flags.writeable:
                    array[...] = self._do.host(there[id(array)])
            return self._seen(gave)

        return asked

    def _seen(self, gave: Any) -> Any:
        if isinstance(gave, tuple):
            return tuple(map(self._seen, gave))
        if isinstance(gave, Waves):
            return Seen(self._do, gave)
        return self._do.host(gave) if type(gave).__name__ in ("DeviceArray", "ndarray") and not isinstance(gave, np.ndarray) else gave


def _arrays(args: Any) -> list[NDArray[Any]]:
    """The NumPy arrays among arguments; those of batches, and what verbs take from the host, stay there."""
    found: list[NDArray[Any]] = []
    for arg in args:
        if isinstance(arg, tuple):
            found += _arrays(arg)
        elif isinstance(arg, np.ndarray) and not isinstance(arg, Batch) and arg.dtype in (np.complex64, np.float32):
            found.append(arg)
    return found


def _given(arg: Any, there: dict[int, Any]) -> Any:
    if isinstance(arg, tuple):
        return tuple(_given(each, there) for each in arg)
    if isinstance(arg, Seen):
        return arg.waves
    return there.get(id(arg), arg)
