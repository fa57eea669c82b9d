"""Which implementation of the verbs does the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import numpy as np

from ptyplugin.model import Geometry
from ptyplugin.solvers.verbs import Verbs
from ptyplugin.solvers.verbs.cpu_fft import FftName
from ptyplugin.solvers.verbs.cuda.device import Device
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

VerbsName = Literal["cpu", "reference"]
#: A name, or what makes the verbs for frames of a geometry.
VerbsChoice = VerbsName | Callable[[Geometry], Verbs]
Precision = Literal["half", "single", "double"]


def verbs_of(name: VerbsChoice, geometry: Geometry, precision: Precision = "single", threads: int = 1, fft: FftName | None = None) -> Verbs:
    """The verbs of this name; in double precision there is the reference only. ``fft``: for "cpu", the best there is if None.

    What is no name makes verbs of its own choice.
    """
    if not isinstance(name, str):
        return name(geometry)
    if name == "reference" or precision == "double":
        return ReferenceVerbs(geometry, np.complex128 if precision == "double" else np.complex64, workers=threads)
    # Compiled code is loaded by those who solve, not by those who import the package.
    from ptyplugin.solvers.verbs.cpu import CpuVerbs

    return CpuVerbs(geometry, threads, fft)


def verbs_on(device: Device, half_waves: bool = False) -> Callable[[Geometry], Verbs]:
    """What makes the verbs that compute on a GPU, and store waves in half precision if asked to."""

    def cuda(geometry: Geometry) -> Verbs:
        from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs

        verbs = CudaVerbs(geometry, device)
        verbs.half_waves = half_waves
        return cast(Verbs, verbs)  # whose arrays are those of the device

    return cuda
