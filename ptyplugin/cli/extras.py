"""What has to be installed, asked before anything is made: one sentence names all of it."""

from __future__ import annotations

from importlib.util import find_spec

#: What each extra brings, by the names that are imported.
_BRINGS = {
    "server": ("uvicorn", "bluesky_tiled_plugins"),
    "sim": ("bluesky", "IPython", "ophyd", "ophyd_async"),
    "epics": ("aioca", "caproto", "p4p"),
}


def need(who: str, *extras: str) -> None:
    """Refuse to begin without the packages of these extras.

    who: begins the sentence, e.g. "the demo"

    Raises:
        JobError: packages are not installed; the message names all of them and what to install.
    """
    missing = [name for extra in extras for name in _BRINGS[extra] if find_spec(name) is None]
    if missing:
        # Late, so that the help is quick.
        from ptyplugin.model import JobError

        raise JobError(f"{who} needs {', '.join(missing)}, not installed here: pip install 'ptyplugin[{','.join(extras)}]'.")
