"""Many iterations on a small scan: where hardly any light falls, the object stays where it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from experiments import run

from ptyplugin.solvers import algorithms


@pytest.mark.parametrize("name", sorted(algorithms._ALGORITHMS))
def test_the_border_does_not_run_away(simulate: Any, name: str) -> None:
    experiment = simulate(side=24, grid=(3, 3))
    result = run(experiment, f"{name}(250)")
    light, modulus = np.zeros(result.object.shape[1:]), np.abs(result.object[0])
    for y, x in np.rint(result.positions_px).astype(int):
        light[y : y + 24, x : x + 24] += (np.abs(result.probe) ** 2).sum(axis=0)
    dim, dark = light < 0.01 * light.max(), light == 0
    assert modulus.max() <= 2.05
    assert np.sqrt((modulus[dim] ** 2).mean()) == pytest.approx(1, abs=0.15)
    np.testing.assert_allclose(modulus[dark], 1, atol=0.15)
    errors = [event.errors["error"] for event in result.progress if "error" in event.errors]
    assert errors[-1] < 1.15 * min(errors)


@pytest.mark.parametrize("name", ["DM", "LSQML", "mPIE"])
def test_in_the_dark_of_very_few_photons_it_stays_bounded(simulate: Any, name: str) -> None:
    experiment = simulate(side=24, grid=(3, 3), photons=300)
    for modes in (1, 2):
        result = run(experiment, f"{name}(150)", object_modes=modes, probe_modes=modes)
        assert np.sqrt((np.abs(result.object) ** 2).sum(axis=0)).max() <= 2.05 * np.sqrt(modes)
