"""Sources: from where the service takes documents and jobs, beside its inbox. Tables ``[[source]]`` of the site file; no secrets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, field_validator


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    profiles: list[str] = Field(min_length=1, description="names or paths of the profiles that its documents are read with")


class ZmqDocuments(_Source):
    """Documents as ``bluesky.callbacks.zmq.Publisher`` sends them through a 0MQ proxy."""

    kind: Literal["zmq"]
    address: str = Field(description="where the proxy publishes: host:port, tcp://host:port or ipc://path")
    prefix: str = Field("", pattern=r"^[!-~]*$", description="prefix of the publisher, ASCII without blanks; all publishers if empty")
    unpickle: bool = Field(False, description="take pickled documents too, of plain values and arrays")
    largest_mb: PositiveFloat = Field(64.0, description="largest message that is taken, MB")

    @field_validator("address")
    @classmethod
    def _with_transport(cls, address: str) -> str:
        named = address if "://" in address else f"tcp://{address}"
        transport, _, place = named.partition("://")
        if transport not in ("tcp", "ipc") or (transport == "tcp" and not place.rpartition(":")[2].isdecimal()) or not place.isprintable():
            raise ValueError(f"{address!r} is no address of a 0MQ proxy: give host:port, tcp://host:port or ipc://path")
        return named


class KafkaDocuments(_Source):
    """Documents as ``bluesky_kafka.Publisher`` sends them: (name, document) in msgpack."""

    kind: Literal["kafka"]
    servers: list[str] = Field(min_length=1, description="bootstrap servers, host:port")
    topics: list[str] = Field(min_length=1, description="e.g. hxn.bluesky.runengine.documents")
    group: str = Field("ptyplugin", min_length=1, description="consumer group: remembers how far the documents were used")
    user: str | None = Field(None, description="user name (SASL/PLAIN over TLS); its password comes from PTYPLUGIN_KAFKA_PASSWORD")
    largest_mb: PositiveFloat = Field(64.0, description="largest message that is taken, MB")


class TiledRuns(_Source):
    """Runs whose end the catalog tells over a websocket; they are read from the catalog."""

    kind: Literal["tiled"]


class CatalogSweep(_Source):
    """Recent runs in the catalog that nobody announced, looked for now and then."""

    kind: Literal["sweep"]
    every_s: PositiveFloat = Field(300.0, description="how often the catalog is looked through, seconds")
    lookback_hours: PositiveFloat = Field(24.0, description="how old a run may be, hours since it began")


class HttpSubmit(BaseModel):
    """Jobs, and the documents of whole runs, from other hosts, with the token in PTYPLUGIN_TOKEN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["http"]
    profiles: list[str] = Field(default=[], description="profiles that documents are read with; only jobs are taken if empty")
    host: str = Field("127.0.0.1", description="address to listen at; the loopback if absent")
    port: int = Field(8770, ge=0, le=65535)
    largest_mb: PositiveFloat = Field(64.0, description="largest request that is taken, MB")


class PvaChannels(_Source):
    """Frames of the PV Access channels that the profiles name in ``[live] pva``, for scans whose documents or jobs come another way.

    The channels of all other sources' profiles are recorded anyway.
    """

    kind: Literal["pva"]


class EigerStream(_Source):
    """Frames of a DECTRIS detector's stream (SIMPLON API 1.x); of each profile's detector."""

    kind: Literal["eiger"]
    address: str = Field(
        pattern=r"^tcp://[^\s:]+:\d{1,5}$", description="where the detector's control unit pushes, e.g. tcp://10.0.0.5:9999"
    )
    largest_mb: PositiveFloat = Field(256.0, description="largest part of a message that is taken, MB")


SourceTable = Annotated[
    ZmqDocuments | KafkaDocuments | TiledRuns | CatalogSweep | HttpSubmit | PvaChannels | EigerStream, Field(discriminator="kind")
]
