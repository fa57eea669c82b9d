"""Handing jobs over to a service on another host, over HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from numpy.typing import NDArray

from ptyplugin.jobs.contents import arrays_beside
from ptyplugin.jobs.packing import JOBS_PATH, TOKEN_VARIABLE, pack
from ptyplugin.model import Job, JobError, Refusal, Site, SiteError

_LONGEST_ANSWER = 1 << 20
_OK, _TOO_LARGE = 200, 413


class RemoteInbox:
    """The inbox of a service on another host: ``AutoReconstruct(profile, submit=RemoteInbox("http://recon:8770"))``.

    uri: address of the service's source of kind ``http``
    token: by default PTYPLUGIN_TOKEN of the environment
    timeout_s: how long to wait for an answer

    Raises:
        SiteError: the address is none, or there is no token.
    """

    def __init__(self, uri: str, token: str | None = None, timeout_s: float = 30.0) -> None:
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise SiteError(f"{parts.scheme}://{parts.hostname} is no address of a service: give one like http://recon:8770.")
        self._parts, self._timeout_s = parts, timeout_s
        self._token = token or os.environ.get(TOKEN_VARIABLE)
        if not self._token:
            raise SiteError(f"there is no token for the service at {parts.hostname}: set {TOKEN_VARIABLE}.")

    def __call__(self, site: Site, job: Job | Refusal, arrays: Mapping[str, NDArray[Any]] | None = None) -> str:
        """Hand a job over. When this returns, the service has it on its disk; gives the job's key.

        Raises:
            JobError: the service does not take this job; its answer says why.
            SiteError: the service cannot be reached, or cannot take jobs now: try again later.
        """
        given = arrays or {}
        if given.keys() != arrays_beside(job).keys():
            raise JobError("the arrays are not those that the job names: submit the job with its arrays.")
        body, content_type = pack(job, given)
        status, answer = self._post(body, content_type)
        if status == _OK and answer.get("key") == job.key:
            return job.key
        sentence = str(answer.get("error") or f"it answers {status}, not with the job's key: is it a service of ptyplugin?")
        kind = JobError if status in (400, _TOO_LARGE) else SiteError
        raise kind(f"the service at {self._parts.hostname} did not take job {job.key}: {sentence}")

    def _post(self, body: bytes, content_type: str) -> tuple[int, dict[str, Any]]:
        connection_of = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        connection = connection_of(str(self._parts.hostname), self._parts.port, timeout=self._timeout_s)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content_type}
        try:
            # A service that refuses answers before it has read all.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", self._parts.path.rstrip("/") + JOBS_PATH, body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read(_LONGEST_ANSWER))
        except (OSError, HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise SiteError(f"the service at {self._parts.hostname} does not answer ({reason}): is it running?") from error
        except ValueError:
            return response.status, {}
        finally:
            connection.close()
        return response.status, answer if isinstance(answer, dict) else {}
