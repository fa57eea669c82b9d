"""Orders: what people want done with a job that was handed over. They lie in the inbox, in their order among the jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ptyplugin.jobs.inbox import Inbox
from ptyplugin.jobs.view import Entry, State
from ptyplugin.model import JobError, Site, canonical_json, read_border

#: Name of the order in its item; an item with a job has JOB_FILE instead.
ORDER_FILE = "order.json"
#: States of a job in which an order can be carried out.
_POSSIBLE: dict[str, tuple[State, ...]] = {"cancel": ("queued", "running"), "retry": ("failed", "cancelled")}
_KINDS = {"refusal": "run that was refused", "unreadable": "item that could not be read"}
_DONE = {"cancel": "cancelled", "retry": "tried again"}
_ANOTHER = " Another result of its scan is made by `ptyplugin reconstruct`, with another recipe and --publish."
_ADVICE = {("retry", "solved"): _ANOTHER, ("retry", "published"): _ANOTHER}


class Order(BaseModel):
    """Cancel a job that waits or runs, or have one that failed or was cancelled done again (retry)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    order: Literal["cancel", "retry"]
    job: str = Field(pattern=r"^[0-9a-f]{16}$", description="the job's key")

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes) -> Order:
        """Read an order from its JSON.

        Raises:
            JobError: it is no order; the message says which field is wrong.
        """
        return read_border(cls, data, "order")


def give(site: Site, order: Order) -> Path:
    """Give an order. When this returns it is on the disk; the daemon carries it out at once, or when it starts.

    Returns:
        The item in the inbox: it is gone when the order was carried out.

    Raises:
        SiteError: the inbox cannot be written.
    """
    return Inbox(site.inbox).hand_over(order.job, {ORDER_FILE: order.to_bytes()})


def check_order(order: Order, entry: Entry) -> None:
    """Raise a JobError when the order makes no sense for this job."""
    # The run of a refusal can be read again.
    if entry.kind == "unreadable" or (entry.kind == "refusal" and order.order != "retry"):
        raise JobError(
            f"{entry.key} is a {_KINDS[entry.kind]}: there is no job to {order.order}. Mend what its sentence says and submit it again."
        )
    if entry.state not in _POSSIBLE[order.order]:
        possible = " or ".join(_POSSIBLE[order.order])
        advice = _ADVICE.get((order.order, entry.state), "")
        raise JobError(f"job {entry.key} is {entry.state}: only one that is {possible} can be {_DONE[order.order]}.{advice}")
