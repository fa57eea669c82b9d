"""Job hand-over: the inbox where producers put jobs, the ledger where the daemon keeps them."""

from __future__ import annotations

from ptyplugin.jobs.contents import JOB_FILE, LOG_FILE
from ptyplugin.jobs.inbox import Inbox, submit, waiting_keys
from ptyplugin.jobs.intake import Intake
from ptyplugin.jobs.ledger import MAX_TRIES, Fitting, Ledger, Overtaken
from ptyplugin.jobs.orders import Order, check_order, give
from ptyplugin.jobs.progress import JobProgress, ProgressFile, read_progress
from ptyplugin.jobs.remote import RemoteInbox
from ptyplugin.jobs.view import Entry, LedgerView, State, Transition, open_read_only

__all__ = [
    "JOB_FILE",
    "LOG_FILE",
    "MAX_TRIES",
    "Entry",
    "Fitting",
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
    "check_order",
    "give",
    "open_read_only",
    "read_progress",
    "submit",
    "waiting_keys",
]
