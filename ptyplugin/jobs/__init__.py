"""Job hand-over: the inbox where producers put jobs, the ledger where the daemon keeps them."""

from __future__ import annotations

from ptyplugin.jobs.contents import GROWTH_FILE, JOB_FILE, LOG_FILE
from ptyplugin.jobs.growing import GrowthFolder
from ptyplugin.jobs.inbox import Inbox, grow, submit, waiting_keys
from ptyplugin.jobs.intake import Intake
from ptyplugin.jobs.ledger import MAX_TRIES, Ledger, Overtaken, Untold
from ptyplugin.jobs.orders import Order, check_order, give
from ptyplugin.jobs.progress import JobProgress, ProgressFile, read_progress
from ptyplugin.jobs.queueing import Fitting
from ptyplugin.jobs.remote import RemoteInbox
from ptyplugin.jobs.snapshots import read_snapshot, remove_snapshot, write_snapshot
from ptyplugin.jobs.view import Entry, LedgerView, State, Transition, may_begin_key, open_read_only

__all__ = [
    "GROWTH_FILE",
    "JOB_FILE",
    "LOG_FILE",
    "MAX_TRIES",
    "Entry",
    "Fitting",
    "GrowthFolder",
    "Inbox",
    "Intake",
    "JobProgress",
    "Ledger",
    "LedgerView",
    "Order",
    "Overtaken",
    "ProgressFile",
    "RemoteInbox",
    "State",
    "Transition",
    "Untold",
    "check_order",
    "give",
    "grow",
    "may_begin_key",
    "open_read_only",
    "read_progress",
    "read_snapshot",
    "remove_snapshot",
    "submit",
    "waiting_keys",
    "write_snapshot",
]
