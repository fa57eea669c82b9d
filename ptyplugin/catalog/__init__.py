"""Tiled in and out: raw runs as documents and frames, results published and found again, a server for demo and tests."""

from __future__ import annotations

from ptyplugin.catalog.connection import connect, warm_up
from ptyplugin.catalog.documents import TILED_MIMETYPE, run_documents
from ptyplugin.catalog.frames import CatalogFrames
from ptyplugin.catalog.publishing import PUBLISHED, PUBLISHING, publish
from ptyplugin.catalog.runs import find_run
from ptyplugin.catalog.searching import root, search
from ptyplugin.catalog.server import LocalServer

__all__ = [
    "PUBLISHED",
    "PUBLISHING",
    "TILED_MIMETYPE",
    "CatalogFrames",
    "LocalServer",
    "connect",
    "find_run",
    "publish",
    "root",
    "run_documents",
    "search",
    "warm_up",
]
