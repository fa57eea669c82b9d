"""``python -m ptyplugin.service.epics``: see ptyplugin.service.epics.process, which has its own name in the log this way."""

from __future__ import annotations

from ptyplugin.service.epics.process import main

if __name__ == "__main__":
    main()
