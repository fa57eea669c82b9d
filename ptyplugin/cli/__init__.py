"""The command line. ``main`` is what the installed command ``ptyplugin`` runs."""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]

#: The exit code of a command that Ctrl-C has stopped, as shells have it.
INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    try:
        # In here, because importing it takes long enough for a Ctrl-C.
        from ptyplugin.cli.app import app

        app()
    except KeyboardInterrupt:
        code: str | int | None = INTERRUPTED
    except SystemExit as end:
        code = end.code
    # What is left to do is to end: one Ctrl-C more must not make a traceback of that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code == INTERRUPTED:
        sys.stderr.write("ptyplugin: stopped by Ctrl-C.\n")
    sys.exit(code)
