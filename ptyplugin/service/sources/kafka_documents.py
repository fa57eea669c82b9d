"""Documents from Kafka, by the protocol of bluesky-kafka: (name, document) in msgpack, one run after the other in a partition."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ptyplugin.model import KafkaDocuments, Profile, SiteError
from ptyplugin.service.sources.decoding import Undecodable, check_size, decode_pair
from ptyplugin.service.sources.desk import Desk
from ptyplugin.service.sources.source import DocumentSource, SourceAway

_log = logging.getLogger(__name__)

PASSWORD_VARIABLE = "PTYPLUGIN_KAFKA_PASSWORD"
#: How long to wait for a message before looking whether to stop; how often what was used is told to the broker (seconds).
_POLL_S, _COMMIT_S = 0.2, 5.0
#: After so long without a word of a broker, the connection counts as lost, seconds.
_SESSION_S = 45.0

#: Makes a consumer from librdkafka's settings; confluent_kafka.Consumer.
MakeConsumer = Callable[[dict[str, Any]], Any]


class KafkaSource(DocumentSource):
    """A consumer of its group. Offsets are committed only when all that came before them is in the inbox.

    Raises:
        SiteError: confluent-kafka is not installed, or a user is named and no password is there.
    """

    def __init__(
        self,
        table: KafkaDocuments,
        profiles: Sequence[Profile],
        desk: Desk,
        on_connected: Callable[[], None],
        make_consumer: MakeConsumer | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__(f"Kafka {', '.join(table.topics)}", profiles, desk)
        self._table, self._on_connected = table, on_connected
        self._settings = _settings(table, environment)
        self._make_consumer = make_consumer or _confluent()

    def work(self, stop: threading.Event) -> None:
        """Take messages until ``stop``; the consumer connects again by itself.

        Raises:
            SourceAway: it gave up.
        """
        consumer = self._make_consumer({**self._settings, "error_cb": lambda error: self._note(error)})
        try:
            consumer.subscribe(self._table.topics)
            self._on_connected()
            uncommitted, next_commit_s = False, time.monotonic() + _COMMIT_S
            while not stop.is_set():
                message = consumer.poll(_POLL_S)
                if message is not None:
                    uncommitted = self._take_message(message) or uncommitted
                if uncommitted and time.monotonic() >= next_commit_s and self.is_quiet():
                    self._commit(consumer)
                    uncommitted, next_commit_s = False, time.monotonic() + _COMMIT_S
        finally:
            if self.is_quiet():
                self._commit(consumer)
            consumer.close()

    def _take_message(self, message: Any) -> bool:
        """Whether it was a document, or something to be passed over; errors of the connection are raised or said."""
        error = message.error()
        if error is not None:
            if error.fatal():
                raise SourceAway(f"the consumer gave up ({error.str()}): it is begun anew.")
            self._note(error)
            return False
        self.state.connected = True
        body = message.value() or b""
        try:
            check_size(len(body), self._table.largest_mb)
            name, document = decode_pair(body)
        except Undecodable as undecodable:
            self.refuse(str(undecodable))
        else:
            self.take(name, document)
        return True

    def _commit(self, consumer: Any) -> None:
        # What is not committed comes again, and is known then.
        try:
            consumer.commit(asynchronous=False)
        except Exception as error:
            _log.debug("%s: offsets are not committed now: %s", self.state.name, error)

    def _note(self, error: Any) -> None:
        if error.code() in _lost_connection():
            self.state.connected = False
        self.say(f"the broker: {error.str()}.")


def _settings(table: KafkaDocuments, environment: Mapping[str, str]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "bootstrap.servers": ",".join(table.servers),
        "group.id": table.group,
        "enable.auto.commit": False,
        "auto.offset.reset": "latest",
        "session.timeout.ms": int(_SESSION_S * 1e3),
        "fetch.message.max.bytes": int(table.largest_mb * 1e6),
    }
    if table.user is not None:
        password = environment.get(PASSWORD_VARIABLE)
        if not password:
            raise SiteError(f"the Kafka user {table.user!r} needs a password: set {PASSWORD_VARIABLE}.")
        settings |= {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": table.user, "sasl.password": password}
    return settings


def _confluent() -> MakeConsumer:
    try:
        from confluent_kafka import Consumer
    except ImportError as error:
        raise SiteError("documents from Kafka need confluent-kafka: pip install 'ptyplugin[kafka]'.") from error
    make: MakeConsumer = Consumer
    return make


def _lost_connection() -> tuple[int, ...]:
    """librdkafka's codes: transport failure, all brokers down."""
    return -195, -187
