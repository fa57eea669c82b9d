"""Verbs whose arrays nobody else can look into: what a GPU's arrays would refuse is refused here, without one."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch, Batches, RankFrames
from ptyplugin.solvers.verbs import DeviceScalar, Verbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

#: Verbs whose results are on the host, and arguments that are; a sweep that is done again has none of them.
_TO_HOST = {"model_counts", "intensity_sums", "gather", "frame_powers", "position_gradient", "frame_residuals", "correlate"}
_FROM_HOST = {"weights", "phases", "shifts"}

_numbers = itertools.count()


class Refused(AssertionError):
    """Somebody used an array that lies elsewhere."""


class Elsewhere:
    """An array that is somewhere else: its shape is known here, and it can be sliced, reshaped and copied; nothing else."""

    def __init__(self, inside: NDArray[Any], number: int | None = None) -> None:
        self.inside = inside
        self.number = next(_numbers) if number is None else number
        self.shape, self.dtype, self.size, self.ndim = inside.shape, inside.dtype, inside.size, inside.ndim
        self.nbytes, self.strides, self.itemsize = inside.nbytes, inside.strides, inside.itemsize

    def __len__(self) -> int:
        return len(self.inside)

    def __getitem__(self, index: Any) -> Elsewhere:
        parts = index if isinstance(index, tuple) else (index,)
        if not all(part is Ellipsis or isinstance(part, int | np.integer | slice) for part in parts):
            raise Refused(f"an array elsewhere is not indexed with {index!r}")
        return Elsewhere(self.inside[index], self.number) if self.inside[index].ndim else self._refuse()

    def reshape(self, *shape: Any) -> Elsewhere:
        made = self.inside.reshape(*shape)
        return Elsewhere(made, self.number if np.shares_memory(made, self.inside) else None)

    def copy(self) -> Elsewhere:
        return Elsewhere(self.inside.copy())

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise Refused("an array that lies elsewhere was used as if it lay here: ask the verbs for it")


#: What would give a number or an array of the host, or change one from there. Python asks the class, not the instance, for these.
_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
REFUSED = (
    *("array", "array_ufunc", "array_function", "iter", "setitem", "contains", "bool", "float", "complex", "int", "index"),
    *("eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert"),
    *(kind + name for name in _OPERATORS for kind in ("", "r", "i")),
)
for _name in REFUSED:
    setattr(Elsewhere, f"__{_name}__", Elsewhere._refuse)
Elsewhere.__hash__ = object.__hash__  # type: ignore[method-assign]


class Held:
    """Counts that the verbs hold: what it gives for an index is a batch's, and only the verbs know what to do with it."""

    def __init__(self, counts: NDArray[Any], verbs: GuardedVerbs) -> None:
        self.shape, self.dtype = counts.shape, counts.dtype
        self._counts, self._verbs = counts, verbs

    def __len__(self) -> int:
        return len(self._counts)

    def __getitem__(self, index: Any) -> _Part:
        return _Part(self._counts[index], self._verbs)


class _Part:
    def __init__(self, inside: NDArray[Any], verbs: GuardedVerbs) -> None:
        self.inside, self._verbs = inside, verbs

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        self._verbs.look()
        return self.inside


class Unread(DeviceScalar):
    """A number that cannot be read while a sweep is done."""

    __slots__ = ("_verbs",)

    def __init__(self, array: NDArray[np.float64], verbs: GuardedVerbs) -> None:
        super().__init__(array)
        self._verbs = verbs

    def __add__(self, other: DeviceScalar) -> DeviceScalar:
        return Unread(np.asarray(self._array + other._array), self._verbs)

    def read(self) -> float:
        self._verbs.look()
        return super().read()


class GuardedVerbs:
    """The reference's verbs on arrays that lie elsewhere.

    A sweep with the key of an earlier one is done, and must ask for the same verbs with the same numbers on the same memory: so a device
    that does the earlier one once more would do the same. No sweep with a key may look at numbers.

    repeated: keys, in the order in which sweeps were done with them; held: frames that were held
    """

    def __init__(self, geometry: Geometry) -> None:
        self._inner = ReferenceVerbs(geometry)
        self.dtype, self.near_field = self._inner.dtype, self._inner.near_field
        self.repeated: list[Hashable] = []
        self.held: list[RankFrames] = []
        self._asked: list[Any] | None = None
        self._done: dict[Hashable, list[Any]] = {}
        self._before = self._since = 0

    def look(self) -> None:
        """Refuse to look at numbers while a sweep is done that may be done again."""
        if self._asked is not None:
            raise Refused("a sweep that may be done again looks at numbers")

    def hold(self, frames: RankFrames) -> RankFrames:
        if isinstance(frames.counts, Held):
            raise Refused("these frames are held already")
        self.held.append(frames)
        self._since = len(self.repeated)  # what was recorded before is of other frames
        store: Any = Held(np.asarray(frames.counts), self)
        return replace(frames, counts=store)

    def repeat(self, key: Hashable, batches: Batches, sweep: Callable[[], DeviceScalar]) -> DeviceScalar:
        if not isinstance(batches.frames.counts, Held):
            raise Refused("frames were not held before they were worked on")
        self._asked, self._before = [], next(_numbers)
        try:
            total = sweep()
        finally:
            asked, self._asked = self._asked, None
        # The first sweep of a stage begins to remember.
        if self.repeated[self._since :].count(key) > 1 and asked != self._done[key]:
            raise Refused(f"another sweep than the one before with the key {key}")
        self.repeated.append(key)
        self._done[key] = asked
        return total

    def array(self, host: NDArray[Any]) -> Elsewhere:
        self.look()
        return Elsewhere(_of_host(host).copy())

    def host(self, X: Elsewhere) -> NDArray[Any]:
        self.look()
        copy = _elsewhere(X).copy()
        copy.setflags(write=False)
        return copy

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Elsewhere:
        return Elsewhere(np.zeros(shape, dtype))

    def longer(self, X: Elsewhere, count: int) -> Elsewhere:
        self.look()
        return Elsewhere(self._inner.longer(_elsewhere(X).copy(), count))

    def put(self, X: Elsewhere, value: Any) -> None:
        self.look()
        _elsewhere(X)[...] = value.inside if isinstance(value, Elsewhere) else value

    def all_finite(self, *X: Elsewhere) -> bool:
        self.look()
        return self._inner.all_finite(*map(_elsewhere, X))

    def roll(self, X: Elsewhere, shift: tuple[int, int]) -> None:
        self.look()
        self._inner.roll(_elsewhere(X), shift)

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._inner, name)
        if not callable(verb) or name not in vars(Verbs):
            raise AttributeError(f"{name} is no verb")
        names = list(inspect.signature(verb).parameters)

        def guarded(*arguments: Any, **named: Any) -> Any:
            arguments += tuple(named[each] for each in names[len(arguments) :] if each in named)
            if name in _TO_HOST or _FROM_HOST.intersection(names):
                self.look()
            if self._asked is not None:
                self._asked.append((name, *map(self._noted, arguments)))
            pairs = zip(arguments, names, strict=True)
            return self._outside(verb(*(self._inside(argument, each) for argument, each in pairs)), name)

        return guarded

    def _inside(self, argument: Any, name: str) -> Any:
        match argument:
            case tuple() if name != "shape":
                return tuple(self._inside(each, name) for each in argument)
            case Elsewhere():
                return argument.inside
            case Batch():
                _check_batch(argument)
                return replace(argument, counts=argument.counts.inside)
            case np.ndarray() if name not in _FROM_HOST:
                raise Refused(f"{name} is an array of the host")
        return argument

    def _outside(self, made: Any, verb: str) -> Any:
        match made:
            case tuple() if verb != "batch_frames":
                return tuple(self._outside(each, verb) for each in made)
            case DeviceScalar():
                return Unread(made.array, self)
            case np.ndarray() if verb not in _TO_HOST:
                return Elsewhere(made)
        return made

    def _noted(self, argument: Any) -> Any:
        """What a device would take down of an argument: numbers, and places of arrays; those that a sweep makes are made in its order."""
        match argument:
            case tuple():
                return tuple(map(self._noted, argument))
            case Elsewhere():
                new = argument.number > self._before
                start = argument.inside.__array_interface__["data"][0]
                return new, argument.number - self._before if new else start, argument.shape, argument.strides
            case Batch():
                return argument.first, len(argument), argument.order is None, argument.frames is not None
            case DeviceScalar():
                return "scalar"
        return argument


def _check_batch(b: Batch) -> None:
    """Whether a device could find these frames among those that it holds."""
    if not isinstance(b.counts, _Part):
        raise Refused("a batch of frames that are not held")
    if b.order is None and not isinstance(b.index, slice):
        raise Refused("a batch does not say which frames it holds")
    if b.frames is not None:
        stop = b.first + len(b)
        mine: Any = slice(b.first, stop) if b.order is None else b.order[b.first : stop]
        if not (np.array_equal(b.corners, b.frames.corners[mine]) and np.array_equal(b.rests, b.frames.rests[mine])):
            raise Refused("a batch lies elsewhere than the frames whose batch it says it is")


def _elsewhere(X: Any) -> NDArray[Any]:
    if not isinstance(X, Elsewhere):
        raise Refused(f"this is no array of the verbs: {type(X).__name__}")
    return X.inside


def _of_host(host: Any) -> NDArray[Any]:
    if not isinstance(host, np.ndarray):
        raise Refused(f"this is no array of the host: {type(host).__name__}")
    return host
