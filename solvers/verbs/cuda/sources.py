"""The CUDA sources as one text each, for whoever compiles them: NVRTC through CuPy, NVRTC alone, or a C++ compiler in tests."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from ptyplugin.solvers.verbs.cuda import fused

_FOLDER = Path(__file__).parent
_INCLUDE = re.compile(r'^[ \t]*#include[ \t]+"(?P<header>\w+\.cuh)"[ \t]*\n', re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
# What says how many threads there will be, itself or by a macro: one pair of parentheses inside its own.
_BOUNDS = r"(?:\w+(?:\s*\((?:[^()]|\([^()]*\))*\)\s*|\s+))?"
_FUNCTION = re.compile(rf'extern\s+"C"\s+__global__\s+{_BOUNDS}void\s+{_BOUNDS}(?P<name>\w+)\s*\(')


def kernel_names() -> tuple[str, ...]:
    """The names of all ``.cu`` files, without their ending, in alphabetical order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.cu")))


@cache
def source_of(name: str) -> str:
    """The text of ``<name>.cu`` with our own headers written in.

    Raises
    ------
    FileNotFoundError
        There is no such file, or no such header.
    """
    return with_headers((_FOLDER / f"{name}.cu").read_text())


def with_headers(text: str) -> str:
    """A text with each of our own headers written in where it is first included."""
    seen: set[str] = set()

    def header(match: re.Match[str]) -> str:
        name = match["header"]
        if name in seen:
            return ""
        seen.add(name)
        return _INCLUDE.sub(header, (_FOLDER / name).read_text().replace("#pragma once\n", ""))

    return _INCLUDE.sub(header, text)


def functions_of(source: str) -> tuple[str, ...]:
    """The names of the kernels that a host can launch (``extern "C" __global__``) in a source's text, in its order."""
    return tuple(match["name"] for match in _FUNCTION.finditer(_COMMENT.sub(" ", source)))


def variants_of(name: str) -> tuple[dict[str, int], ...]:
    """The sets of defines with which ``<name>.cu`` is compiled: what tests build."""
    if name.startswith("fused_"):
        return fused.variants(name)
    words = [word for word in ("COUNTS_FLOAT", "PSI_HALF") if re.search(rf"\b{word}\b", source_of(name))]
    return ({}, *({word: 1} for word in words))
