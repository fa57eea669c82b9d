"""Pictures of the demo's image while its scan goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ptyplugin.model import PtypluginError, Site

_log = logging.getLogger(__name__)

#: How often the image is looked at, seconds.
_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Pictures:
    """Those that were drawn: of live images, and of final ones that were being made while there was another scan or its data to write."""

    live: list[Path] = field(default_factory=list)
    final: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        said = [f"{len(drawn)} of the {name} image" for name, drawn in (("live", self.live), ("final", self.final)) if drawn]
        if not said:
            return "no pictures: the scan was over before its first image"
        return f"{(self.live or self.final)[0].parent}, pictures on the way: {' and '.join(said)}"


@contextmanager
def live_pictures(site: Site, folder: Path) -> Iterator[Pictures]:
    """Meanwhile, each new image of the job that runs becomes a PNG in ``folder``, named by its time, scan and purpose."""
    over, drawn = threading.Event(), Pictures()
    thread = threading.Thread(target=_draw, args=(site, folder, drawn, over), name="ptyplugin-live-pictures")
    thread.start()
    try:
        yield drawn
    finally:
        over.set()
        thread.join()


def _draw(site: Site, folder: Path, drawn: Pictures, over: threading.Event) -> None:
    import matplotlib

    from ptyplugin.api import live

    # A window is for those who ask for one.
    matplotlib.use("agg")
    figure, last = live(site=site), None
    try:
        while not over.wait(_EVERY_S):
            if figure.update() and (scene := figure.scene) and scene.view and scene.view is not last:
                last = scene.view
                folder.mkdir(exist_ok=True)
                path = folder / f"{time.strftime('%H-%M-%S')}-scan-{scene.scan_id}-{scene.purpose}.png"
                figure.save(path)
                (drawn.live if scene.purpose == "live" else drawn.final).append(path)
    except (OSError, PtypluginError) as error:
        _log.warning("there are no more live pictures: %s", error)
    finally:
        figure.close()
