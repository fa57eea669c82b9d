"""The ledger's tables, and the connection to its SQLite file (WAL, synchronous=FULL, on a local disk)."""

from __future__ import annotations

import sqlite3
import time
from importlib.metadata import version
from pathlib import Path

from ptyplugin.jobs.durable import make_folder, sync_folder
from ptyplugin.model import LedgerError

#: Format of the tables; stored in the file.
SCHEMA_VERSION = 4
#: What is written into each row: the ptyplugin that wrote it.
VERSION = version("ptyplugin")
#: Marks the file as a ledger ("ptyp" in ASCII).
_APPLICATION_ID = 0x70747970

#: Times are Unix seconds. A job that could not be read has a row too (kind unreadable), so that nothing accepted is lost silently.
#: starts: all of them; tries: of these, the ones that count. checkpoint: iteration that a next start goes on from, as far as it is known.
#: version: of the ptyplugin that brought the job into its state; none where that is from before format 3.
#: growth: how many frames of a live job arrived later, by the first of them; their positions lie in the job's folder.
_TABLES = """
CREATE TABLE job (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('job', 'refusal', 'unreadable')),
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'solved', 'published', 'failed', 'cancelled')),
    run_uid TEXT,
    scan_id INTEGER,
    beamline TEXT,
    source TEXT,
    purpose TEXT,
    recipe TEXT,
    frames INTEGER,
    priority INTEGER NOT NULL,
    notes TEXT NOT NULL,
    device TEXT NOT NULL DEFAULT 'auto',
    needed_bytes INTEGER NOT NULL DEFAULT 0,
    starts INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    checkpoint INTEGER NOT NULL DEFAULT 0,
    not_before_s REAL NOT NULL DEFAULT 0,
    lease_until_s REAL NOT NULL DEFAULT 0,
    fraction_done REAL NOT NULL DEFAULT 0,
    sentence TEXT,
    result TEXT,
    version TEXT,
    arrived_s REAL NOT NULL,
    changed_s REAL NOT NULL
);
CREATE INDEX job_by_state ON job (state, priority DESC, number);
CREATE INDEX job_by_run ON job (run_uid, purpose);
CREATE TABLE transition (
    number INTEGER PRIMARY KEY,
    job TEXT NOT NULL REFERENCES job (key),
    at_s REAL NOT NULL,
    state TEXT NOT NULL,
    sentence TEXT,
    version TEXT
);
CREATE INDEX transition_by_job ON transition (job, number);
CREATE TABLE growth (
    job TEXT NOT NULL REFERENCES job (key),
    first_frame INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (job, first_frame)
);
"""
#: What makes tables of an older format those of the next one.
_NEWER = {
    1: """
    ALTER TABLE job ADD COLUMN device TEXT NOT NULL DEFAULT 'auto';
    ALTER TABLE job ADD COLUMN needed_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE job ADD COLUMN starts INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE job ADD COLUMN checkpoint INTEGER NOT NULL DEFAULT 0;
    UPDATE job SET starts = tries;
    """,
    2: """
    ALTER TABLE job ADD COLUMN version TEXT;
    ALTER TABLE transition ADD COLUMN version TEXT;
    """,
    # SQLite below 3.35 drops no column.
    3: """
    CREATE TABLE shorter (
        job TEXT NOT NULL REFERENCES job (key),
        first_frame INTEGER NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (job, first_frame)
    );
    INSERT INTO shorter SELECT job, first_frame, count FROM growth;
    DROP TABLE growth;
    ALTER TABLE shorter RENAME TO growth;
    """,
}
#: Orders that were carried out, by the name of their item; made where it is missing, so that ledgers from before it get it.
_ORDERS = "CREATE TABLE IF NOT EXISTS obeyed (item TEXT PRIMARY KEY, at_s REAL NOT NULL)"
#: Transitions that people are to be told of; remaining: names of the addresses (JSON) that have not taken it, all of them where it is none.
_UNTOLD = "CREATE TABLE IF NOT EXISTS untold (transition INTEGER PRIMARY KEY REFERENCES transition (number), remaining TEXT)"
#: Noted in the same transaction as the transition itself, as long as anybody is to be told.
KEEP_UNTOLD = """
CREATE TRIGGER IF NOT EXISTS to_be_told AFTER INSERT ON transition WHEN NEW.state IN ('solved', 'failed')
BEGIN INSERT INTO untold (transition) VALUES (NEW.number); END
"""
KEEP_NOTHING = "DROP TRIGGER IF EXISTS to_be_told"


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the ledger to write, and make it when it is not there.

    Raises:
        LedgerError: damaged, newer, no ledger, or on a disk where it cannot be kept.
    """
    try:
        make_folder(path.parent)
        connection = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        try:
            connection.row_factory = sqlite3.Row
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(
            f"the ledger {path} cannot be opened ({error}): check its disk; if the file is damaged, move it away and start again "
            "(the folders of the jobs and the results stay)."
        ) from error
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the ledger to read; works while a daemon writes, while none runs, and without the right to write.

    Raises:
        LedgerError: there is none, or it cannot be read.
    """
    if not path.exists():
        raise LedgerError(f"there is no ledger at {path}: no daemon has run with this site's home yet.")
    address = f"{path.absolute().as_uri()}?mode=ro"
    try:
        return _open_reader(address, path)
    except sqlite3.Error as error:
        first = error
    # A reader that may not write beside the file can read it alone when no writer has it open: then it does not change.
    if not path.with_name(path.name + "-wal").exists():
        try:
            return _open_reader(f"{address}&immutable=1", path)
        except sqlite3.Error as error:
            first = error
    raise LedgerError(f"the ledger {path} cannot be read ({first}): check that it is a ledger and may be read.")


def _open_reader(address: str, path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=30)
    try:
        connection.row_factory = sqlite3.Row
        _check(connection, path)
    except (sqlite3.Error, LedgerError):
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        _check(connection, path)
    mode = connection.execute("PRAGMA journal_mode = wal").fetchone()[0]
    if mode != "wal":
        raise LedgerError(f"the ledger {path} cannot keep a write-ahead log (journal mode {mode}): put the site's home on a local disk.")
    connection.execute("PRAGMA synchronous = full")
    connection.execute("PRAGMA foreign_keys = on")
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
        sync_folder(path.parent)
    for older in range(connection.execute("PRAGMA user_version").fetchone()[0], SCHEMA_VERSION):
        connection.executescript(f"BEGIN IMMEDIATE; {_NEWER[older]} PRAGMA user_version = {older + 1}; COMMIT;")
    connection.execute(_ORDERS)
    connection.execute(_UNTOLD)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise LedgerError(f"{path} is no ledger of ptyplugin: move it away, or set another home in the site file.")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > SCHEMA_VERSION:
        raise LedgerError(
            f"the ledger {path} has format {found}, this ptyplugin knows formats up to {SCHEMA_VERSION}: use the newer ptyplugin."
        )


def now_s() -> float:
    """The time that the ledger keeps: Unix seconds."""
    return time.time()
