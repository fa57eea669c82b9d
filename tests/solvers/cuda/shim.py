"""A device that is the CPU: the CUDA sources built with g++ through ``cuda_shim.h``, and arrays that allow only what a sweep may do.

Environment: ``SHIM_REVERSED=1`` runs threads and blocks in reversed order; ``SHIM_FLAGS`` are further flags of the compiler, as
``-fsanitize=address`` (then with ``LD_PRELOAD=$(g++ -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0``).
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import struct
import subprocess
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import scipy.fft
from numpy.typing import DTypeLike, NDArray

from ptyplugin.solvers.verbs.cuda.device import DeviceMemoryError, Replay, Shape
from ptyplugin.solvers.verbs.cuda.sources import functions_of, source_of

T = TypeVar("T")
_HEADER = Path(__file__).with_name("cuda_shim.h")
_FLAGS = ("-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-w")
_DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+(?:__align__\s*\(\d+\)\s*)?(?P<type>[\w ]+?)\s+(?P<name>\w+)\s*\[\s*\]\s*;")
#: The dtypes of an array, or of a NumPy scalar, behind each type of an argument.
_DTYPES = {
    "float2": ("complex64", "float32"),
    "float4": ("float32",),
    "double2": ("complex128", "float64"),
    "int2": ("int32",),
    "int4": ("int32",),
    "uint2": ("uint32",),
    "ushort2": ("uint16", "float16"),
    "float": ("float32",),
    "double": ("float64",),
    "bool": ("bool",),
    "uint8": ("uint8", "bool"),
    "uint16": ("uint16", "float16"),
    **{name: (name,) for name in ("int8", "int16", "int32", "uint32", "int64", "uint64")},
}
_ALIGNMENT = {"float2": 8, "float4": 16, "double2": 16, "int2": 8, "int4": 16, "uint2": 8, "ushort2": 4}
_ALIGN, _GUARD = 256, 256
_UNTOUCHED = b"\xa5" * _GUARD
#: There in a process that runs under AddressSanitizer: it then watches the guards.
_poison = getattr(ctypes.CDLL(None), "__asan_poison_memory_region", None)
_unpoison = getattr(ctypes.CDLL(None), "__asan_unpoison_memory_region", None)


class ShimError(RuntimeError):
    """A kernel did what it must not, or does not compile."""


# ---------------------------------------------------------------------------------------------------------------- arrays
class _Memory:
    """Bytes of a device: NaN at first, with a guard before and behind them."""

    def __init__(self, nbytes: int) -> None:
        raw = np.empty(nbytes + 2 * _GUARD + _ALIGN, np.uint8)
        start = -raw.ctypes.data % _ALIGN
        self._guarded = raw[start : start + nbytes + 2 * _GUARD]
        self._guarded[:_GUARD] = self._guarded[_GUARD + nbytes :] = 0xA5
        self.bytes = self._guarded[_GUARD : _GUARD + nbytes]
        self.bytes[:] = 0xFF
        if _poison and _unpoison:
            first = self._guarded.ctypes.data
            for guard in (first, first + _GUARD + nbytes):
                _poison(ctypes.c_void_p(guard), ctypes.c_size_t(_GUARD))
            weakref.finalize(self, _unpoison, ctypes.c_void_p(first), ctypes.c_size_t(self._guarded.size))

    def intact(self) -> bool:
        if _poison:
            return True
        return self._guarded[:_GUARD].tobytes() == _UNTOUCHED and self._guarded[_GUARD + self.bytes.size :].tobytes() == _UNTOUCHED


class _Pointer:
    def __init__(self, ptr: int) -> None:
        self.ptr = ptr


class _Flags:
    def __init__(self, c_contiguous: bool) -> None:
        self.c_contiguous = c_contiguous


_BASIC = (int, np.integer, slice, type(None), type(Ellipsis))
_REFUSED = (
    "add radd iadd sub rsub isub mul rmul imul truediv rtruediv itruediv floordiv rfloordiv mod rmod pow rpow ipow matmul rmatmul imatmul "
    "neg pos abs invert and rand iand or ror ior xor rxor ixor lshift rshift eq ne lt le gt ge bool float int complex index iter contains "
    "array setitem delitem round divmod"
)


class DeviceArray:
    """What ``Array`` in device.py lists and nothing else: all other use raises TypeError, because on a GPU it would wait or be a kernel."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, device: HostDevice, memory: _Memory, host: NDArray[Any]) -> None:
        self._device, self._memory, self._host = device, memory, host

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    size = property(lambda self: self._host.size)
    ndim = property(lambda self: self._host.ndim)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: _Flags(self._host.flags.c_contiguous))
    data = property(lambda self: _Pointer(self._host.ctypes.data))

    def __len__(self) -> int:
        return len(self._host)

    def __repr__(self) -> str:
        return f"<DeviceArray {self.dtype} {self.shape}>"

    def __getitem__(self, key: Any) -> DeviceArray:
        keys = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, _BASIC) and not isinstance(part, bool) for part in keys):
            raise TypeError(f"a device array takes integers and slices, not {key!r}: picking elements by numbers is a kernel")
        whole = keys if any(part is Ellipsis for part in keys) else (*keys, Ellipsis)
        return self._same(self._host[whole])

    def reshape(self, *shape: Any) -> DeviceArray:
        host = self._host.reshape(*shape)
        if host.size and not np.shares_memory(host, self._memory.bytes):
            raise TypeError(f"reshaping {self.shape} with strides {self.strides} copies: use a contiguous array")
        return self._same(host)

    def view(self, dtype: DTypeLike) -> DeviceArray:
        return self._same(self._host.view(dtype))

    def copy(self) -> DeviceArray:
        copied = self._device.empty(self.shape, self.dtype)
        self._device.fill(copied, self)
        return copied

    def _same(self, host: NDArray[Any]) -> DeviceArray:
        return DeviceArray(self._device, self._memory, host)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise TypeError(f"a device array has no .{name} in a sweep: arithmetic is a kernel, device.get copies it to the host")


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(self: DeviceArray, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"__{name}__ of a device array: arithmetic is a kernel, device.fill writes and device.get reads it")

    return refuse


for _name in _REFUSED.split():
    setattr(DeviceArray, f"__{_name}__", _refusing(_name))


# --------------------------------------------------------------------------------------------------------------- kernels
def folder() -> Path:
    """Where builds are kept from one run of the tests to the next."""
    path = Path(tempfile.gettempdir()) / f"ptyplugin-shim-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise ShimError(f"{path} belongs to somebody else: set TMPDIR")
    return path


@cache
def _built(source: str, defines: tuple[tuple[str, int], ...], flags: str) -> ctypes.CDLL:
    """The library of a source, from the cache or built now; processes that want the same one wait for each other."""
    body = _DYNAMIC_SHARED.sub(r"\g<type>* const \g<name> = static_cast<\g<type>*>(shim::dynamic_shared());", source)
    exports = "\n".join(f"SHIM_EXPORT({name})" for name in functions_of(source))
    text = f'{_HEADER.read_text()}\n#line 1 "kernel.cu"\n{body}\n{exports}\n'
    command = ["g++", *_FLAGS, *flags.split(), *(f"-D{name}={value}" for name, value in defines)]
    stem = folder() / hashlib.sha256("\0".join([text, *command]).encode()).hexdigest()[:24]
    library = stem.with_suffix(".so")
    with stem.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            new = stem.with_suffix(".new")
            done = subprocess.run([*command, "-x", "c++", "-", "-o", str(new)], input=text, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ShimError(f"g++ does not compile this source with {dict(defines)}:\n{done.stderr[-4000:]}")
            new.rename(library)
    return ctypes.PyDLL(str(library))


class HostKernel:
    """One function of a source, called as ``cupy.RawKernel`` is, with all of its arguments checked."""

    def __init__(self, device: HostDevice, library: ctypes.CDLL, function: str) -> None:
        self.name, self._device, self._library = function, device, library
        self._launch = getattr(library, f"shim_launch_{function}")
        self._launch.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        signature = getattr(library, f"shim_signature_{function}")
        signature.restype = ctypes.c_char_p
        self.parameters = tuple(signature().decode().split(",")[:-1])
        library.shim_message.restype = ctypes.c_char_p

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0) -> None:
        packed, arrays = self._packed(args), [arg for arg in args if isinstance(arg, DeviceArray)]
        sizes = self._sizes("grid", grid) + self._sizes("block", block)
        if not 0 <= shared_mem <= self._device.shared_bytes:
            raise ShimError(f"{self.name}: {shared_mem} bytes of shared memory, a block has {self._device.shared_bytes}")
        self._device.do(self.name, lambda: self._run(sizes, packed, arrays, shared_mem))

    def _run(self, sizes: bytes, packed: bytes, arrays: list[DeviceArray], shared_mem: int) -> None:
        counts, arguments = ctypes.create_string_buffer(sizes), ctypes.create_string_buffer(packed, len(packed) + 1)
        if self._launch(ctypes.addressof(counts), ctypes.addressof(counts) + 12, shared_mem, ctypes.addressof(arguments)):
            raise ShimError(f"{self.name}: {self._library.shim_message().decode()}")
        for array in arrays:
            if not array._memory.intact():
                raise ShimError(f"{self.name} writes outside of {array!r}")

    def _sizes(self, what: str, sizes: tuple[int, ...]) -> bytes:
        if not isinstance(sizes, tuple) or not 1 <= len(sizes) <= 3 or not all(isinstance(n, int | np.integer) and n > 0 for n in sizes):
            raise ShimError(f"{self.name}: the {what} is {sizes!r}, not one to three whole numbers above 0")
        return struct.pack("3I", *sizes, *(1,) * (3 - len(sizes)))

    def _packed(self, args: tuple[Any, ...]) -> bytes:
        if len(args) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments ({', '.join(self.parameters)}), not {len(args)}")
        return b"".join(self._one(i, arg, of).ljust(16, b"\0") for i, (arg, of) in enumerate(zip(args, self.parameters, strict=True)))

    def _one(self, i: int, arg: Any, parameter: str) -> bytes:
        said = f"{self.name}: argument {i} is a {parameter}, not"
        if parameter.endswith("*"):
            return struct.pack("P", self._address(said, arg, parameter[:-1]))
        if not isinstance(arg, np.generic):
            raise TypeError(f"{said} {type(arg).__name__} {arg!r}: give a NumPy scalar of this type")
        if arg.dtype.name not in _DTYPES.get(parameter, ()) or arg.dtype.itemsize != _SIZES[parameter]:
            raise TypeError(f"{said} {arg.dtype.name} {arg!r}")
        return arg.tobytes()

    def _address(self, said: str, arg: Any, element: str) -> int:
        if isinstance(arg, np.uintp) and arg == 0:
            return 0
        if not isinstance(arg, DeviceArray):
            raise TypeError(f"{said} {type(arg).__name__} {arg!r}: give a device array or NULL")
        if arg.dtype.name not in _DTYPES.get(element, ()):
            raise TypeError(f"{said} an array of {arg.dtype.name}")
        if arg._device is not self._device:
            raise TypeError(f"{said} an array of another device")
        if arg.data.ptr % _ALIGNMENT.get(element, arg.itemsize):
            raise TypeError(f"{said} an array at address {arg.data.ptr:#x}: a GPU wants a multiple of {_ALIGNMENT[element]} bytes")
        return int(arg.data.ptr)


_SIZES = {name: max(np.dtype(dtype).itemsize for dtype in dtypes) for name, dtypes in _DTYPES.items()}


@contextmanager
def reversed_order() -> Iterator[None]:
    """Threads and blocks run in reversed order in here: what then differs misses a barrier."""
    os.environ["SHIM_REVERSED"] = "1"
    try:
        yield
    finally:
        del os.environ["SHIM_REVERSED"]


# ---------------------------------------------------------------------------------------------------------------- device
class HostDevice:
    """A ``Device`` that is the CPU. ``launches`` counts what it did, by function; ``allocated`` and ``in_use`` count bytes.

    ``total_bytes``: as if it had so much memory. ``sources`` gives the text of a ``.cu`` file by its name.
    """

    def __init__(self, total_bytes: int = 16 * 2**30, shared_bytes: int = 227 * 1024, sources: Callable[[str], str] = source_of) -> None:
        self.name = "CPU shim"
        self.shared_bytes = shared_bytes
        self.launches: Counter[str] = Counter()
        self.allocated = self.in_use = self.most_in_use = 0
        self._total, self._sources = total_bytes, sources
        self._kernels: dict[Any, HostKernel] = {}
        self._plans: set[Any] = set()
        self._recorded: list[Callable[[], None]] | None = None

    def empty(self, shape: Shape, dtype: DTypeLike) -> DeviceArray:
        shape, kind = (shape,) if isinstance(shape, int | np.integer) else tuple(shape), np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if self.in_use + nbytes > self._total:
            raise DeviceMemoryError(f"{nbytes} bytes do not fit into the {self._total - self.in_use} that are free of {self._total}")
        memory = _Memory(nbytes)
        self.allocated += nbytes
        self.in_use += nbytes
        self.most_in_use = max(self.most_in_use, self.in_use)
        weakref.finalize(memory, self._freed, nbytes)
        array = DeviceArray(self, memory, memory.bytes.view(kind).reshape(shape))
        if self._recorded is not None:
            self._recorded.append(lambda: memory.bytes.fill(0xFF))
        return array

    def _freed(self, nbytes: int) -> None:
        self.in_use -= nbytes

    def zeros(self, shape: Shape, dtype: DTypeLike) -> DeviceArray:
        array = self.empty(shape, dtype)
        self.fill(array, 0)
        return array

    def put(self, host: NDArray[Any]) -> DeviceArray:
        self._refuse("put")
        if not isinstance(host, np.ndarray):
            raise TypeError(f"put takes a NumPy array, not {type(host).__name__}")
        array = self.empty(host.shape, host.dtype)
        array._host[...] = host
        return array

    def put_ahead(self, host: NDArray[Any]) -> Callable[[], DeviceArray]:
        array = self.put(host)
        return lambda: array

    def fill(self, array: DeviceArray, value: Any) -> None:
        if isinstance(value, np.ndarray):
            self._refuse("fill from the host")
        elif not isinstance(value, DeviceArray | complex | float | int | np.number):
            raise TypeError(f"fill takes an array or a number, not {type(value).__name__}")
        if isinstance(value, np.ndarray | DeviceArray) and (value.shape != array.shape or value.dtype != array.dtype):
            raise TypeError(f"fill of {array.dtype} {array.shape} with {value.dtype} {value.shape}: both must be alike")
        if isinstance(value, complex | np.complexfloating) and array.dtype.kind != "c":
            raise TypeError(f"fill of {array.dtype} with the complex number {value}")
        host = value._host if isinstance(value, DeviceArray) else value
        self.do("fill", lambda: np.copyto(array._host, host))

    def get(self, array: DeviceArray) -> NDArray[Any]:
        self._refuse("get")
        return array._host.copy()

    def kernel(self, file: str, function: str = "", **defines: int) -> HostKernel:
        key = (file, function or file, tuple(sorted(defines.items())))
        if key not in self._kernels:
            self._refuse("the first use of a kernel")
            source = self._sources(file)
            if key[1] not in functions_of(source):
                raise ShimError(f"{file}.cu has no function {key[1]}, only {', '.join(functions_of(source))}")
            library = _built(source, key[2], os.environ.get("SHIM_FLAGS", ""))
            self._kernels[key] = HostKernel(self, library, key[1])
        return self._kernels[key]

    def fft(self, waves: DeviceArray, inverse: bool) -> None:
        host = waves._host
        if host.dtype != np.complex64 or host.ndim < 2 or not host.flags.c_contiguous:
            raise TypeError(f"fft takes contiguous complex64 (..., y, x), not {host.dtype} {host.shape} with strides {host.strides}")
        if host.shape not in self._plans:
            self._refuse("the first Fourier transform of a shape")
            self._plans.add(host.shape)
        self.do("fft", lambda: np.copyto(host, self._transformed(host, inverse)))

    @staticmethod
    def _transformed(host: NDArray[Any], inverse: bool) -> NDArray[Any]:
        return np.asarray(scipy.fft.ifft2(host, norm="forward") if inverse else scipy.fft.fft2(host))

    def finish(self) -> None:
        self._refuse("finish")

    def memory(self) -> tuple[int, int]:
        return self._total - self.in_use, self._total

    def record(self, run: Callable[[], T]) -> tuple[Replay, T]:
        self._refuse("record")
        self._recorded = noted = []
        try:
            given = run()
        finally:
            self._recorded = None

        def replay() -> T:
            self._refuse("a replay")
            for one in noted:
                one()
            return given

        return replay, given

    def do(self, name: str, work: Callable[[], None]) -> None:
        """Do it now, and again with each replay of what is recorded now."""

        def counted() -> None:
            self.launches[name] += 1
            work()

        if self._recorded is not None:
            self._recorded.append(counted)
        counted()

    def _refuse(self, what: str) -> None:
        if self._recorded is not None:
            raise TypeError(f"{what} while a sweep is recorded: no work of the host in a sweep")
