"""The CUDA sources as the GPU's own compiler sees them: NVRTC, without a GPU or its driver. What it said is kept from run to run."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

from cupy.cuda import nvrtc
from shim import folder

#: Turing, Ampere, Hopper and Blackwell: the oldest and the newest that CUDA 13 serves, and what lies between.
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")
_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class CompileError(AssertionError):
    """NVRTC does not take it, or warns; the message is its log."""


@dataclass(frozen=True)
class Resources:
    """What one kernel needs: registers of a thread; bytes of memory for what did not fit into them, and for arrays of a thread."""

    registers: int
    spilled: int
    stack: int


def compiled(source: str, architecture: str, defines: dict[str, int]) -> dict[str, Resources]:
    """The needs of all kernels of a source, by name."""
    options = ("-std=c++17", "-ftz=true", "-Xptxas=-v", f"-arch={architecture}", *(f"-D{name}={value}" for name, value in defines.items()))
    known = folder() / (hashlib.sha256("\0".join((source, *options, str(nvrtc.getVersion()))).encode()).hexdigest()[:24] + ".log")
    if not known.exists():
        new = known.with_suffix(f".{os.getpid()}")
        new.write_text(_log(source, options))
        new.rename(known)
    return {
        match["name"]: Resources(int(match["registers"]), int(match["stores"]) + int(match["loads"]), int(match["stack"]))
        for match in _ENTRY.finditer(known.read_text())
    }


def _log(source: str, options: tuple[str, ...]) -> str:
    """What NVRTC says, told what CuPy tells it."""
    program = nvrtc.createProgram(source, "kernel.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
    except nvrtc.NVRTCError as error:
        raise CompileError(nvrtc.getProgramLog(program)) from error
    log = str(nvrtc.getProgramLog(program))
    nvrtc.destroyProgram(program)
    if "warning" in log:
        raise CompileError(log)
    return log
