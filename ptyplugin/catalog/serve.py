"""The process behind LocalServer: ``python -m ptyplugin.catalog.serve CONFIG DATABASE SOCKET``.

It serves a Tiled configuration on a socket that its parent has bound, and ends when its parent does. The key comes from
TILED_SINGLE_USER_API_KEY and goes nowhere else: unlike ``tiled serve config`` it prints nothing, and it logs no addresses
(the key may stand in them).
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from pathlib import Path

#: Seconds that requests under way are given when the server is told to end.
GRACE_S = 3


def end_with_parent() -> None:
    """End this process when standard input closes: the parent holds its other end and is gone then, however it ended."""

    def watch() -> None:
        os.read(0, 1)  # not sys.stdin: its lock would be held when the interpreter ends
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def main(config: Path, database: Path, descriptor: int) -> None:
    """Serve ``config`` on the bound socket ``descriptor``; the SQLite ``database`` is made if it is not there."""
    # To look for what is free among all that is imported here would be a fifth of the start.
    gc.disable()
    import uvicorn
    from tiled.commandline.main import cli_app
    from tiled.config import parse_configs
    from tiled.server.app import build_app_from_config

    if not database.exists():
        cli_app(["catalog", "init", f"sqlite:///{database}"], standalone_mode=False)
    app = build_app_from_config(parse_configs(config))
    # What was imported stays: to look for what is free need not go through it with every few requests.
    gc.freeze()
    gc.enable()
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=GRACE_S))
    server.run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    end_with_parent()
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
