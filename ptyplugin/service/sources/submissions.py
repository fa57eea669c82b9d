"""What is handed over by HTTP, without the HTTP: jobs, growth of live ones, and the documents of whole runs.

It is acknowledged when the inbox has it on the disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ptyplugin.callbacks import FileReader, assemble
from ptyplugin.jobs import GROWTH_FILE, JOB_FILE, Inbox, submit
from ptyplugin.jobs.packing import unpack, unpack_growth
from ptyplugin.model import JobError, Profile, Refusal, Site
from ptyplugin.service.sources.collecting import collect
from ptyplugin.service.sources.finished import Finished
from ptyplugin.service.sources.state import SourceState

#: Before each document of a JSON text sequence (RFC 7464), which Tiled gives for a run.
_RECORD_SEPARATOR = "\x1e"


class Submissions:
    """Takes bodies of requests; ``profiles`` read documents."""

    def __init__(self, site: Site, profiles: Sequence[Profile], finished: Finished, state: SourceState) -> None:
        self._inbox, self._site = Inbox(site.inbox), site
        self._profiles, self._finished, self._state = profiles, finished, state

    def take_job(self, body: bytes) -> dict[str, Any]:
        """Put a job into the inbox; gives what to answer.

        Raises:
            JobError: it is no job.
            SiteError: the inbox cannot be written.
        """
        job, files = unpack(body)
        try:
            key = job.key
        except ValueError as error:
            raise JobError(f"this job has a number that cannot be ({error}): correct it and send it again.") from error
        self._inbox.hand_over(key, {**files, JOB_FILE: job.to_bytes()})
        self._state.count("jobs")
        return {"key": key}

    def take_growth(self, body: bytes) -> dict[str, Any]:
        """Put growth of a live job into the inbox; gives what to answer.

        Raises:
            JobError: it is none.
            SiteError: the inbox cannot be written.
        """
        growth, files = unpack_growth(body)
        self._inbox.hand_over(growth.job, {**files, GROWTH_FILE: growth.to_bytes()})
        return {"key": growth.job, "first": growth.first}

    def take_run(self, body: bytes) -> dict[str, Any]:
        """Make jobs of the documents of one run, from start to stop, and put them into the inbox; gives what to answer.

        Raises:
            JobError: these are not the documents of a run.
            LedgerError: the ledger cannot be read.
            SiteError: the inbox cannot be written.
        """
        if not self._profiles:
            raise JobError("no profile is named for documents: add profiles to the source of kind 'http' in the site file, or send jobs.")
        ended = collect(_documents(body), self._profiles, self._state)
        if len(ended) != 1:
            raise JobError(f"{len(ended)} runs end in these documents: send those of one run, from its start to its stop.")
        if not ended[0].found:
            raise JobError(f"the documents of run {ended[0].uid} have no start: send them from its start to its stop.")
        self._state.count("runs")
        if self._finished.has(ended[0].uid):
            return {"run_uid": ended[0].uid, "jobs": [], "known": True}
        made = [assemble(run, profile, FileReader(self._site)) for profile, run in ended[0].found if run.is_ptychography]
        answers = []
        for parts in made:
            if isinstance(parts, Refusal):
                answers.append({"key": submit(self._site, parts), "refused": parts.reason})
                self._state.count("refusals")
            else:
                answers.append({"key": submit(self._site, parts.job, parts.arrays)})
                self._state.count("jobs")
        self._finished.settle(ended[0].uid)
        return {"run_uid": ended[0].uid, "jobs": answers, "known": False}


def _documents(body: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Documents of a JSON text sequence or of JSON lines: {"name": ..., "doc": ...} or [name, document].

    Raises:
        JobError: a line is neither.
    """
    try:
        lines = body.decode().replace(_RECORD_SEPARATOR, "").split("\n")
    except UnicodeDecodeError as error:
        raise JobError("the documents are no text: send JSON lines.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise JobError(f"line {number} of the documents is no JSON ({type(error).__name__}): send one document a line.") from error
        pair = (value.get("name"), value.get("doc")) if isinstance(value, dict) else value
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], dict):
            raise JobError(f'line {number} is no document: write ["start", {{...}}] or {{"name": "start", "doc": {{...}}}}.')
        yield pair[0], pair[1]
