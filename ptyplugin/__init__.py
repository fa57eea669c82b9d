"""ptyplugin: the ptychographic image in the catalog while the scan is still running."""

from __future__ import annotations

__version__ = "0.1.0"
