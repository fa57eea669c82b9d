"""The HTTP app: POST /jobs, /growth, /runs with ``Authorization: Bearer <token>``; GET what ``look`` gives. The standard library alone."""

from __future__ import annotations

import hmac
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ptyplugin.jobs.packing import GROWTH_PATH, JOBS_PATH, RUNS_PATH, TOKEN_VARIABLE
from ptyplugin.model import HttpSubmit, JobError, PtypluginError, SiteError
from ptyplugin.service.accepting import waited_out
from ptyplugin.service.sources.source import Source, SourceAway
from ptyplugin.service.sources.submissions import Submissions

_log = logging.getLogger(__name__)

#: How long a client may take for what it asks, and for all the rest (its body besides, at the least so many bytes a second); seconds.
ASKING_S, SERVED_S, _SLOWEST = 5.0, 20.0, 5e5
#: How many may be served at the same time. Where that is not enough, one that has not asked anything yet makes way.
_MOST_CLIENTS = 64
#: How long to wait for a request before looking whether to stop, seconds.
_POLL_S = 0.2
_SHORTEST_TOKEN = 16
_MB = 1e6
_MOST_DIGITS = 15
#: How long the rest of a refused body is read, seconds: a client that still writes would not see the answer.
_DRAIN_S = 2.0

_Take = Callable[[bytes], dict[str, Any]]
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to GET: its HTTP status, its content type, its body."""

    status: int
    content_type: str
    body: bytes


class HttpSource(Source):
    """Takes what other hosts hand over. ``address`` is where it listens, once it does.

    Raises:
        SiteError: there is no token in the environment, or a short one.
    """

    def __init__(
        self, table: HttpSubmit, make_submissions: Callable[[Source], Submissions], environment: Mapping[str, str] = os.environ
    ) -> None:
        self._begin(table)
        token = environment.get(TOKEN_VARIABLE, "")
        if len(token) < _SHORTEST_TOKEN:
            raise SiteError(
                f"a source of kind 'http' needs a token of at least {_SHORTEST_TOKEN} characters in {TOKEN_VARIABLE}: make one, "
                "for example with `openssl rand -hex 32`."
            )
        self._expected = f"Bearer {token}".encode()
        submissions = make_submissions(self)
        self._takes |= {JOBS_PATH: submissions.take_job, GROWTH_PATH: submissions.take_growth, RUNS_PATH: submissions.take_run}

    def _begin(self, table: HttpSubmit, port_named: str = "port of this source") -> None:
        super().__init__(f"HTTP {table.host}:{table.port}")
        self._port_named = port_named
        self._table, self._expected = table, b""
        self._takes: dict[str, _Take] = {}
        self.address: tuple[str, int] | None = None
        #: Answers GET, if anything does.
        self.look: Callable[[str], Page] | None = None

    def work(self, stop: threading.Event) -> None:
        """Serve until ``stop``.

        Raises:
            SourceAway: the address cannot be listened at.
        """
        try:
            server = _Server((self._table.host, self._table.port), self)
        except OSError as error:
            raise SourceAway(
                f"{self._table.host}:{self._table.port} cannot be listened at ({error.strerror}): set another {self._port_named} in the "
                "site file (0: any that is free), or stop what has it."
            ) from error
        with server:
            server.timeout = _POLL_S
            self.address = self._table.host, server.server_port
            self.state.connected = True
            _log.info("%s: listening at %s:%s", self.state.name, self._table.host, server.server_port)
            while not stop.is_set():
                server.handle_request()
                server.end_what_is_late()

    def could_not_accept(self, error: OSError) -> None:
        """A client is there, and cannot be let in."""
        waited_out(error, self._complaints)

    def answer(self, path: str, headers: Mapping[str, str], read: Callable[[int], bytes]) -> tuple[int, dict[str, Any]]:
        """Status and answer to a POST; ``read`` gives so many bytes of its body."""
        if not self._is_known(headers):
            return self._refused(
                401, f"the token is missing or wrong: send Authorization: Bearer and what {TOKEN_VARIABLE} is at the service."
            )
        take = self._takes.get(path)
        if take is None:
            return self._refused(404, f"there is nothing at this path: POST to {' or '.join(self._takes)}.")
        length = headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > _MOST_DIGITS:
            return self._refused(411, "the request does not say its length: send Content-Length.")
        if int(length) > self._table.largest_mb * _MB:
            return self._refused(
                413,
                f"the request has {int(length) / _MB:.1f} MB, more than the {self._table.largest_mb:g} MB that are taken: "
                "let the frames lie in a file, or raise largest_mb of the source.",
            )
        try:
            body = read(int(length))
        except OSError:
            return self._refused(408, "the request was not sent to its end in time: send it again.")
        if len(body) < int(length):
            return self._refused(400, "the request is shorter than it says: send it again.")
        return self._taken(take, body)

    def time_for(self, headers: Mapping[str, str]) -> float:
        """How long a request may take once its headers are there, seconds: longer for a long body of somebody who is known."""
        length = headers.get("Content-Length", "")
        fits = length.isdecimal() and len(length) <= _MOST_DIGITS and int(length) <= self._table.largest_mb * _MB
        return SERVED_S + (int(length) / _SLOWEST if fits and self._is_known(headers) else 0.0)

    def see(self, target: str, headers: Mapping[str, str]) -> Page:
        """The answer to a GET. At the loopback it needs no token, but must be meant for it; elsewhere all but /healthz needs one."""
        if self._table.host in _LOOPBACK:
            # A web page elsewhere may have a name of its own point here, and a browser on this machine read it for that page.
            if _host_name(headers.get("Host") or "") not in _LOOPBACK:
                return _page(403, "this is not the name of this machine's loopback: ask 127.0.0.1.")
        elif target != "/healthz" and not self._is_known(headers):
            return _page(401, f"the token is missing or wrong: send Authorization: Bearer and what {TOKEN_VARIABLE} is at the service.")
        if self.look is None:
            return _page(404, "there is nothing to see here.")
        try:
            return self.look(target)
        except Exception as error:
            _log.exception("a question could not be answered")
            return _page(500, f"a mistake of ptyplugin ({type(error).__name__}): report it with the service's log.")

    def _is_known(self, headers: Mapping[str, str]) -> bool:
        return bool(self._expected) and hmac.compare_digest((headers.get("Authorization") or "").encode(errors="replace"), self._expected)

    def _taken(self, take: _Take, body: bytes) -> tuple[int, dict[str, Any]]:
        # A mistake of ours in one request must not end the source.
        try:
            answer = take(body)
        except JobError as error:
            return self._refused(400, str(error))
        except PtypluginError as error:
            self.say(str(error))
            return 503, {"error": str(error)}
        except Exception as error:
            _log.exception("a request could not be answered")
            return self._refused(500, f"a mistake of ptyplugin ({type(error).__name__}): report it with the service's log.")
        self.state.took_document()
        return 200, answer

    def _refused(self, status: int, sentence: str) -> tuple[int, dict[str, Any]]:
        self.refuse(f"a request was refused ({status}): {sentence}")
        return status, {"error": sentence}


def _host_name(host: str) -> str:
    """What a Host header names, without the port."""
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0].lower()


def _page(status: int, sentence: str) -> Page:
    return Page(status, "application/json", json.dumps({"error": sentence}).encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A request under way ends with the process; its client was not told that it was taken.
    block_on_close = False
    #: Connections that the system keeps until they are accepted.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], source: HttpSource) -> None:
        self.source = source
        self._lock = threading.Lock()
        #: Of each client: when its time is up. Those that have not asked anything yet, the oldest first.
        self._ends_s: dict[socket.socket, float] = {}
        self._silent: dict[socket.socket, None] = {}
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:
            self.source.could_not_accept(error)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._ends_s) >= _MOST_CLIENTS
            oldest = next(iter(self._silent), None)
            if full and oldest is not None:
                del self._silent[oldest]
                _hang_up(oldest)
            if not full or oldest is not None:
                self._ends_s[request] = time.monotonic() + ASKING_S
                self._silent[request] = None
        if full and oldest is None:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._ends_s.pop(request, None)
                self._silent.pop(request, None)

    def has_asked(self, request: socket.socket, time_s: float) -> None:
        """The headers of a request are there: it gets so many seconds more."""
        with self._lock:
            self._silent.pop(request, None)
            self._ends_s[request] = time.monotonic() + time_s

    def end_what_is_late(self) -> None:
        """Hang up on clients whose time is up, however busy they seem."""
        with self._lock:
            for request in [request for request, end_s in self._ends_s.items() if end_s < time.monotonic()]:
                _hang_up(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a client went away", exc_info=True)


def _hang_up(request: socket.socket) -> None:
    """Its thread finds the connection closed, and ends."""
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = SERVED_S
    server_version, sys_version = "ptyplugin", ""

    def do_POST(self) -> None:
        self.server.has_asked(self.connection, self.server.source.time_for(self.headers))  # type: ignore[arg-type]
        status, answer = self.server.source.answer(self.path, self.headers, self.rfile.read)  # type: ignore[arg-type]
        self._send(Page(status, "application/json", json.dumps(answer).encode()))
        if status != 200:
            self._drain()

    def do_GET(self) -> None:
        self.server.has_asked(self.connection, SERVED_S)
        self._send(self.server.source.see(self.path, self.headers))  # type: ignore[arg-type]

    def _send(self, page: Page) -> None:
        self.close_connection = True
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(page.body)

    def _drain(self) -> None:
        end_s = time.monotonic() + _DRAIN_S
        self.connection.settimeout(_DRAIN_S / 4)
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while time.monotonic() < end_s and self.rfile.read1(1 << 16):
                pass

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing of a request goes into the log but what ``refuse`` says."""
