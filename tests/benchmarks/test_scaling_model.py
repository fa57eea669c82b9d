"""The model of several GPUs: its limits are known."""

from __future__ import annotations

import pytest

from benchmarks.scaling_model import CASES, LINKS, SUMMED_BYTES, halo_share, sum_s, work_s

CASE = CASES[0]


def test_one_gpu_has_nothing_to_sum_and_many_share_all_but_the_update_of_the_object() -> None:
    assert all(sum_s(1e9, link, 1) == 0 for link in LINKS)
    update = work_s(CASE, "S3", 10**9)
    assert work_s(CASE, "S3", 4) - update == pytest.approx((work_s(CASE, "S3", 1) - update) / 4)


def test_a_ring_carries_nearly_twice_the_sums_at_most() -> None:
    nbytes = CASE.object**2 * SUMMED_BYTES
    for link, (bandwidth, start) in LINKS.items():
        assert nbytes / bandwidth < sum_s(nbytes, link, 8) < 2 * nbytes / bandwidth + 20 * start


def test_two_halves_overlap_by_a_strip_as_wide_as_a_frame() -> None:
    assert halo_share(CASE, 1) == 0
    assert halo_share(CASE, 2) == pytest.approx(CASE.side / CASE.object, rel=0.25)
