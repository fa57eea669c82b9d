"""Tiled in and out: raw runs as documents and frames, results published and found again, a server for demo and tests."""

from __future__ import annotations

from ptyplugin.catalog.connection import connect, scopes_missing, warm_up
from ptyplugin.catalog.documents import TILED_MIMETYPE, run_documents
from ptyplugin.catalog.frames import CatalogFrames
from ptyplugin.catalog.live import LIVE, LiveImages
from ptyplugin.catalog.publishing import PUBLISHED, PUBLISHING, publish
from ptyplugin.catalog.recent import RecentRun, recent_runs, runs_with_results
from ptyplugin.catalog.runs import find_run, run_with_uid
from ptyplugin.catalog.samples import array_samples
from ptyplugin.catalog.searching import root, search
from ptyplugin.catalog.server import LocalServer

__all__ = [
    "LIVE",
    "PUBLISHED",
    "PUBLISHING",
    "TILED_MIMETYPE",
    "CatalogFrames",
    "LiveImages",
    "LocalServer",
    "RecentRun",
    "array_samples",
    "connect",
    "find_run",
    "publish",
    "recent_runs",
    "root",
    "run_documents",
    "run_with_uid",
    "runs_with_results",
    "scopes_missing",
    "search",
    "warm_up",
]
