"""Fourier transforms of the ``cpu`` verbs: in place, complex64, over the last two axes, never scaled by ``norm``.

SciPy is always there. pyFFTW is taken where it is installed: about twice as fast, and under the GPL.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from typing import Any, Literal, Protocol

import numpy as np
import scipy.fft
from numpy.typing import NDArray

FftName = Literal["scipy", "pyfftw"]
Complex64 = NDArray[np.complex64]


class Fft(Protocol):
    """Transforms for one thread. What ``backward`` gives, times ``backward_scale``, is the inverse of ``forward``."""

    backward_scale: float

    def empty(self, shape: tuple[int, ...]) -> Complex64:
        """An array that can be transformed without a copy, and a plan for its shape."""
        ...

    def forward(self, w: Complex64) -> None: ...
    def backward(self, w: Complex64) -> None: ...


class ScipyFft:
    """scipy.fft: its inverse is scaled on the way, at no cost."""

    backward_scale = 1.0

    def __init__(self, shape: tuple[int, int]) -> None:
        """All shapes are alike to SciPy."""

    def empty(self, shape: tuple[int, ...]) -> Complex64:
        return np.empty(shape, dtype=np.complex64)

    def forward(self, w: Complex64) -> None:
        transformed = scipy.fft.fft2(w, overwrite_x=True)
        if transformed is not w:
            w[...] = transformed

    def backward(self, w: Complex64) -> None:
        transformed = scipy.fft.ifft2(w, overwrite_x=True)
        if transformed is not w:
            w[...] = transformed


class PyFftw:
    """pyFFTW: plans are measured once per shape; its inverse is not scaled."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._pyfftw: Any = _imported_pyfftw()
        self.backward_scale = 1 / (shape[0] * shape[1])
        self._plans: dict[tuple[int, ...], list[Any]] = {}

    def empty(self, shape: tuple[int, ...]) -> Complex64:
        array: Complex64 = self._pyfftw.empty_aligned(shape, dtype="complex64")
        if array.size:
            self._plans_of(shape)
        return array

    def forward(self, w: Complex64) -> None:
        self._execute(w, 0)

    def backward(self, w: Complex64) -> None:
        self._execute(w, 1)

    def _execute(self, w: Complex64, direction: int) -> None:
        plan = self._plans_of(w.shape)[direction]
        if self._pyfftw.is_byte_aligned(w) and w.flags.c_contiguous:
            plan.update_arrays(w, w)
            plan.execute()
        else:
            aligned = self.empty(w.shape)
            aligned[...] = w
            self._execute(aligned, direction)
            w[...] = aligned

    def _plans_of(self, shape: tuple[int, ...]) -> list[Any]:
        """[forward, backward] in place."""
        if shape not in self._plans:
            scratch = self._pyfftw.empty_aligned(shape, dtype="complex64")
            self._plans[shape] = [
                self._pyfftw.FFTW(scratch, scratch, axes=(-2, -1), direction=direction, flags=("FFTW_MEASURE",), threads=1)
                for direction in ("FFTW_FORWARD", "FFTW_BACKWARD")
            ]
        return self._plans[shape]


class _NotForThisThread:
    """A finder of modules that has this thread not find dask, whose import takes 1 s and 95 MB: pyFFTW offers it what nobody here needs."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "dask" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(name)


def _imported_pyfftw() -> Any:
    finder: Any = _NotForThisThread()
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module("pyfftw")
    finally:
        sys.meta_path.remove(finder)


def best_fft() -> FftName:
    """pyfftw where it is installed, else scipy."""
    return "pyfftw" if importlib.util.find_spec("pyfftw") else "scipy"


def fft_of(name: FftName, shape: tuple[int, int]) -> Fft:
    """Transforms for one thread and frames of ``shape``."""
    return PyFftw(shape) if name == "pyfftw" else ScipyFft(shape)
