"""The one way to start a Python of ours in a process of its own."""

from __future__ import annotations

import sys


def own_python(module: str, *words: object, python: str | None = None) -> list[str]:
    """The command that runs ``module`` of ptyplugin with these words, by this Python or by ``python``, another machine's.

    A file in the current folder, such as somebody's ``random.py``, does not stand in for one of the standard library (-P). What is said
    last is in the log, however the process ends (-u).
    """
    return [python or sys.executable, "-P", "-u", "-m", module, *map(str, words)]
