"""Pictures of the demo's image while its scan goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptyplugin.model import PtypluginError, Site

_log = logging.getLogger(__name__)

#: How often the image is looked at, seconds.
_EVERY_S = 2.0


@contextmanager
def live_pictures(site: Site, folder: Path) -> Iterator[None]:
    """Meanwhile, each new image of the job that runs becomes a PNG in ``folder``, named by its time."""
    over = threading.Event()
    thread = threading.Thread(target=_draw, args=(site, folder, over), name="ptyplugin-live-pictures")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _draw(site: Site, folder: Path, over: threading.Event) -> None:
    import matplotlib

    from ptyplugin.api import live

    # A window is for those who ask for one.
    matplotlib.use("agg")
    figure = live(site=site)
    try:
        while not over.wait(_EVERY_S):
            if figure.update() and figure.has_image:
                folder.mkdir(exist_ok=True)
                figure.save(folder / time.strftime("%H-%M-%S.png"))
    except (OSError, PtypluginError) as error:
        _log.warning("there are no more live pictures: %s", error)
    finally:
        figure.close()
