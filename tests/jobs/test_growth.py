"""Growth of a live job on its way into the inbox, by a folder and by HTTP."""

from __future__ import annotations

import numpy as np
import pytest

from ptyplugin.jobs import Inbox, grow, waiting_keys
from ptyplugin.jobs.packing import pack, unpack_growth
from ptyplugin.model import BesideSource, FrameBlock, Growth, Job, JobError, Site, put_beside


def beside_growth(job: Job, first: int = 3) -> tuple[Growth, dict[str, np.ndarray]]:
    """Two frames that came inside events."""
    arrays: dict[str, np.ndarray] = {}
    array = put_beside("frames.npy", np.full((2, 128, 128), first, np.uint16), arrays)
    block = FrameBlock(source=BesideSource(name=array.name, sha256=array.sha256), ranges=[(0, 2)])
    positions = [[(0.0, first * 1e-6)], [(0.0, first * 1e-6 + 1e-6)]]
    return Growth(job=job.key, first=first, frames=[block], frame_ids=[(first, first + 2)], positions_m=positions), arrays


def test_an_item_holds_growth_and_its_arrays(site: Site, job: Job) -> None:
    growth, arrays = beside_growth(job)
    grow(site, growth, arrays)
    (item,) = Inbox(site.inbox).waiting()
    assert Growth.from_bytes((item / "growth.json").read_bytes()) == growth
    assert np.array_equal(np.load(item / "frames.npy"), arrays["frames.npy"])
    assert waiting_keys(site) == []


def test_the_arrays_must_be_those_that_it_names(site: Site, job: Job) -> None:
    growth, arrays = beside_growth(job)
    with pytest.raises(JobError, match=r"growth names frames\.npy but it was not given"):
        grow(site, growth)
    with pytest.raises(JobError, match=r"other\.npy was given but the growth"):
        grow(site, growth, {**arrays, "other.npy": np.zeros(2)})
    assert Inbox(site.inbox).waiting() == []


def test_growth_as_the_body_of_a_request(job: Job) -> None:
    growth, arrays = beside_growth(job)
    body, kind = pack(growth, arrays)
    back, files = unpack_growth(body)
    assert (kind, back, list(files)) == ("application/zip", growth, ["frames.npy"])
    end = Growth(job=job.key, first=5, ended=True)
    assert unpack_growth(pack(end, {})[0]) == (end, {})
    with pytest.raises(JobError, match=r"has no growth\.json in it|only growth\.json and arrays"):
        unpack_growth(pack(job, {"a.npy": np.zeros(2)})[0])
    with pytest.raises(JobError, match=r"growth names the arrays frames\.npy, and none came"):
        unpack_growth(growth.to_bytes())
