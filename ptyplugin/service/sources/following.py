"""Following a run through the catalog while it is written, for its live image: a websocket for each of its nodes that counts."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgpack

from ptyplugin.model import CatalogError

if TYPE_CHECKING:
    from ptyplugin.catalog.run_stream import Node, RunStream

_log = logging.getLogger(__name__)

#: Largest message that is taken, bytes: rows of a table, or frames of events.
LARGEST_BYTES = 64 << 20
#: Seconds: for a connection; between two looks whether to end; for what is still on its way when the run has ended, and for its end
#: where only its nodes did; without a message, after which its RunEngine was killed.
CONNECT_S, _LOOK_S, _LATE_S, _SILENT_S = 10.0, 0.1, 10.0, 3600.0
#: Pauses between two tries to connect, seconds; then the rest of the run is given up.
_PAUSES_S = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
#: What the server says when the writer has ended a node's stream.
_ENDED = 1000


class Follower:
    """Follows one run in a thread of its own, until its end.

    Whatever goes wrong costs the rest of the live image and nothing else: the job of the whole run is made at its end as ever.

    uid: of the run
    address: of a node's stream; headers: with which to connect
    run: makes documents of what is told; give: takes them
    """

    def __init__(
        self,
        uid: str,
        address: Callable[[Node], str],
        headers: Callable[[], Mapping[str, str]],
        run: RunStream,
        give: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._uid, self._address, self._headers, self._run, self._give = uid, address, headers, run, give
        self._listening: set[asyncio.Task[None]] = set()
        #: Number of the last message on each node.
        self._heard: dict[Node, int] = {}
        self._heard_s = time.monotonic()
        self._end: tuple[float, dict[str, Any]] | None = None
        self._is_cut = False
        self._thread = threading.Thread(target=self._work, name=f"ptyplugin-run-{uid}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self, stop: Mapping[str, Any]) -> None:
        """The run has ended with this stop document; what is on its way still counts."""
        self._end = self._end or (time.monotonic(), dict(stop))

    def cut(self) -> None:
        """Leave it."""
        self._is_cut = True

    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return not self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(timeout_s)

    def _work(self) -> None:
        try:
            asyncio.run(self._follow())
        except CatalogError as error:
            _log.warning("run %s: its live image gets no more frames: %s.", self._uid, str(error).rstrip("."))
        except Exception:
            _log.exception("run %s: its live image gets no more frames, by a mistake of ptyplugin", self._uid)
        if self._run.is_live and not self._is_cut:
            self._give("stop", self._end[1] if self._end else _unheard_end(self._uid))

    async def _follow(self) -> None:
        """Until the writer has ended it.

        Raises:
            CatalogError: some of it was lost, or its streams cannot be had any more.
        """
        self._listen_to(())
        try:
            while self._listening and not self._is_cut and not self._is_late() and not self._is_silent():
                done, _ = await asyncio.wait(self._listening, timeout=_LOOK_S)
                for task in done:
                    task.result()
                self._listening -= done
            closed_s = time.monotonic()
            while not (self._end or self._is_cut) and time.monotonic() - closed_s < _LATE_S:
                await asyncio.sleep(_LOOK_S)
        finally:
            for task in self._listening:
                task.cancel()
            await asyncio.gather(*self._listening, return_exceptions=True)

    def _is_late(self) -> bool:
        return self._end is not None and time.monotonic() - self._end[0] > _LATE_S

    def _is_silent(self) -> bool:
        return time.monotonic() - self._heard_s > _SILENT_S

    def _listen_to(self, node: Node) -> None:
        self._listening.add(asyncio.get_running_loop().create_task(self._listen(node)))

    async def _listen(self, node: Node) -> None:
        """Take all that is told of a node; a connection that broke goes on where it was.

        Raises:
            CatalogError: it cannot be connected to.
        """
        from websockets.exceptions import WebSocketException

        tried = 0
        while True:
            before = self._heard.get(node, 0)
            try:
                if await self._hear(node):
                    return
                why = "the server goes away"
            except _Unreadable:
                raise
            except (WebSocketException, OSError, CatalogError) as error:
                why = str(error) or type(error).__name__
            tried = 0 if self._heard.get(node, 0) > before else tried + 1
            if tried > len(_PAUSES_S):
                raise CatalogError(f"the stream of {'/'.join(node) or 'the run'} cannot be had ({why})")
            await asyncio.sleep(_PAUSES_S[max(0, tried - 1)])

    async def _hear(self, node: Node) -> bool:
        """Take what one connection brings; whether the writer has ended the stream."""
        from websockets.asyncio.client import connect

        headers = await asyncio.to_thread(self._headers)
        address = f"{self._address(node)}&start={self._heard.get(node, 0) + 1}"
        async with connect(address, additional_headers=headers, max_size=LARGEST_BYTES, open_timeout=CONNECT_S, proxy=None) as socket:
            async for message in socket:
                self._take(node, message)
        return socket.close_code == _ENDED

    def _take(self, node: Node, message: bytes | str) -> None:
        # It is foreign: whatever goes wrong while it is read is wrong with it.
        try:
            told = msgpack.unpackb(message if isinstance(message, bytes) else message.encode())
            if "sequence" not in told:
                return
            documents, nodes = self._run.take(node, told)
            self._heard[node], self._heard_s = int(told["sequence"]), time.monotonic()
        except CatalogError as error:
            raise _Unreadable(str(error)) from error
        except Exception as error:
            raise _Unreadable(f"a message cannot be read ({type(error).__name__}: {error})") from error
        for document in documents:
            self._give(*document)
        for each in nodes:
            self._listen_to(each)


class _Unreadable(CatalogError):
    """A message that cannot be used."""


def _unheard_end(uid: str) -> dict[str, Any]:
    return {"uid": f"{uid}-unheard", "run_start": uid, "time": time.time(), "exit_status": "unknown", "reason": "", "num_events": {}}
