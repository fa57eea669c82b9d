"""The command line. ``main`` is what the installed command ``ptyplugin`` runs."""

from __future__ import annotations

from ptyplugin.cli.app import main

__all__ = ["main"]
