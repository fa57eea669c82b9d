"""Job hand-over: the inbox where producers put jobs, the ledger where the daemon keeps them."""

from __future__ import annotations

from ptyplugin.jobs.inbox import Inbox, submit

__all__ = ["Inbox", "submit"]
