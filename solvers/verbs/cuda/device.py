"""What the verbs ask of a device: memory, kernels, Fourier transforms, and a sweep that is recorded once and repeated.

All arithmetic on a device is kernels. Of its arrays only what ``Array`` lists is used, so that tests can run all of it without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ptyplugin.model.errors import DeviceError, SolverError

T = TypeVar("T")
Shape = int | tuple[int, ...]
#: Does again what was recorded, with the same memory; gives what it gave.
Replay = Callable[[], Any]
#: A pointer to nothing, as an argument of a kernel.
NULL = np.uintp(0)


class DeviceMemoryError(SolverError):
    """The memory of the device is full: a smaller batch may fit."""


class DeviceLost(SolverError):
    """The device failed and cannot be used by this process any more: worth another try by a fresh one."""


class Array(Protocol):
    """An array on a device: all that may be done with it there. Slices are views; whatever computes is a kernel."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def size(self) -> int: ...
    @property
    def ndim(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def itemsize(self) -> int: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def flags(self) -> Any: ...
    @property
    def data(self) -> Any: ...
    @property
    def reshape(self) -> Callable[..., Any]: ...
    @property
    def view(self) -> Callable[..., Any]: ...
    @property
    def copy(self) -> Callable[..., Any]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...


class Kernel(Protocol):
    """One function of a ``.cu`` file, compiled. Scalars are NumPy scalars of the function's own types, pointers device arrays or NULL."""

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0) -> None: ...


class Device(Protocol):
    """A GPU, or what stands for one in tests. Work is queued in the order of the calls; ``get`` and ``finish`` wait for it."""

    @property
    def name(self) -> str: ...

    @property
    def shared_bytes(self) -> int:
        """The most shared memory that a block can have."""
        ...

    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        """New memory with anything in it. Raises DeviceMemoryError where there is not enough."""
        ...

    def zeros(self, shape: Shape, dtype: DTypeLike) -> Array:
        """New memory, zero. Raises DeviceMemoryError where there is not enough."""
        ...

    def put(self, host: NDArray[Any]) -> Array:
        """A new array with the values of one on the host; not while a sweep is recorded."""
        ...

    def put_ahead(self, host: NDArray[Any]) -> Callable[[], Array]:
        """Begin to ``put`` while work goes on; what is called for the array when it is needed. Not while a sweep is recorded."""
        ...

    def fill(self, array: Array, value: Array | NDArray[Any] | complex) -> None:
        """array <- value, in place; either may be a view with strides. An array on the host: not while a sweep is recorded."""
        ...

    def get(self, array: Array) -> NDArray[Any]:
        """A copy on the host, once all work is done; not while a sweep is recorded."""
        ...

    def kernel(self, file: str, function: str = "", **defines: int) -> Kernel:
        """The function (named like the file, if not said) of ``<file>.cu``, compiled once per defines."""
        ...

    def fft(self, waves: Array, inverse: bool) -> None:
        """waves (..., y, x) <- their 2-D Fourier transform, unnormalised in both directions, in place. Contiguous complex64."""
        ...

    def finish(self) -> None:
        """Wait until all work is done."""
        ...

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, bytes in all."""
        ...

    def record(self, run: Callable[[], T]) -> tuple[Replay, T] | None:
        """Do ``run``, noting all it asks of the device: what does that again, and what run gave. None, with a line in the log: it cannot be
        recorded, and nothing of it has been done.

        Run has been run before, so that all its kernels and transforms are there. Arrays that it makes have other values after each
        repetition; what has to last is made before.
        """
        ...


def open_device(number: int) -> Device:
    """The GPU with a number, as CUDA counts those that this process sees.

    Raises
    ------
    DeviceError
        There is none that can be used; the message names what is missing.
    """
    try:
        from ptyplugin.solvers.verbs.cuda.cupy_device import CupyDevice

        return CupyDevice(number)
    except (ImportError, SolverError) as error:
        from ptyplugin.solvers.devices import look, why_not

        raise DeviceError(f"GPU {number} cannot be used: {why_not(look()) or error}.") from error
