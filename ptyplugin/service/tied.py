"""Become another program that ends when its parent does: ``python tied.py PARENT_PID PROGRAM [ARGUMENT ...]``.

Run as a file, with the standard library alone, because it stands between every job and its start.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tie_to_parent(parent: int) -> None:
    """Have the system kill this process, and what it becomes by exec, when its parent ends (Linux). Ends at once if that is so already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def tied_to_us() -> list[str]:
    """What stands before a command that is to end with this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid())]


if __name__ == "__main__":
    tie_to_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
