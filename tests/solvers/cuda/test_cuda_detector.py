"""Background and intensities in the verbs for GPUs, against the reference; on the CPU."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from frames_on_device import CASES, Frames, Kind, Side, compare

from ptyplugin.solvers.batches import Batch


def results(side: Side, case: Frames, b: Batch) -> dict[str, Any]:
    do, O, P = side.do, side.of(case.O), side.of(case.P)
    rng = np.random.default_rng(1)
    num, den = (side.of(rng.random(case.kind.shape)) for _ in range(2))
    do.background_sums(num, den, side.detected(O, P, b), b, 0.3)
    gave = {"background num": side.host(num), "background den": side.host(den)}
    gave["intensity_sums"] = do.intensity_sums(side.detected(O, P, b), b, 0.3)
    back = do.to_sample(side.detected(O, P, b), b)  # which is owed a factor
    return gave | {"intensity_sums of waves": do.intensity_sums(back, b, 0.3)}


@pytest.mark.parametrize(("kind", "order"), CASES)
def test_every_verb_agrees_with_the_reference(kind: Kind, order: str) -> None:
    compare(kind, order, results, 5e-6)
