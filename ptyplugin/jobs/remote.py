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
from ptyplugin.jobs.packing import GROWTH_PATH, JOBS_PATH, TOKEN_VARIABLE, pack
from ptyplugin.model import Growth, Job, JobError, Refusal, Site, SiteError

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
        self._hand_over(JOBS_PATH, job, job.key, arrays or {})
        return job.key

    def grow(self, site: Site, growth: Growth, arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Hand further frames of a live job over, as ``ptyplugin.jobs.grow``.

        Raises:
            JobError, SiteError: as a job that is handed over.
        """
        self._hand_over(GROWTH_PATH, growth, growth.job, arrays or {})

    def _hand_over(self, path: str, job: Job | Refusal | Growth, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        what = "growth of job" if isinstance(job, Growth) else "job"
        if arrays.keys() != arrays_beside(job).keys():
            raise JobError(f"the arrays are not those that the {what} names: submit it with its arrays.")
        status, answer = self._post(path, *pack(job, arrays))
        if status == _OK and answer.get("key") == key:
            return
        sentence = str(answer.get("error") or f"it answers {status}, not with the job's key: is it a service of ptyplugin?")
        kind = JobError if status in (400, _TOO_LARGE) else SiteError
        raise kind(f"the service at {self._parts.hostname} did not take {what} {key}: {sentence}")

    def _post(self, path: str, body: bytes, content_type: str) -> tuple[int, dict[str, Any]]:
        connection_of = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        connection = connection_of(str(self._parts.hostname), self._parts.port, timeout=self._timeout_s)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content_type}
        try:
            # A service that refuses answers before it has read all.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", self._parts.path.rstrip("/") + path, body, headers)
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
