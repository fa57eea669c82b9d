"""ptyplugin: the ptychographic image in the catalog, a moment after the scan.

``ptyplugin.open_scan``, ``ptyplugin.reconstruct``, ``ptyplugin.resolution``, ``ptyplugin.solver``, ``ptyplugin.results`` and
``ptyplugin.live`` are those of ``ptyplugin.api``, imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptyplugin.api import live, open_scan, reconstruct, resolution, results, solver

__version__ = "0.1.0"
__all__ = ["__version__", "live", "open_scan", "reconstruct", "resolution", "results", "solver"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ptyplugin import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
