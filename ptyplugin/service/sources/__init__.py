"""Sources of documents and jobs beside the inbox: 0MQ, Tiled, Kafka, HTTP, and a sweep of the catalog. All of them end in the inbox."""

from __future__ import annotations

from ptyplugin.service.sources.sources import Sources
from ptyplugin.service.sources.state import SourceState

__all__ = ["SourceState", "Sources"]
