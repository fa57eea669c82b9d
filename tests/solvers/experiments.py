"""What tests of algorithms do with a simulated experiment."""

from __future__ import annotations

from typing import Any

from ptyplugin.model import Recipe, Reconstruction
from ptyplugin.solvers import solve


def run(experiment: Any, recipe: str, **how: Any) -> Reconstruction:
    """Reconstruct it on one rank; how: arguments of ``solve``."""
    result = solve(experiment.frames, experiment.scan, experiment.geometry, recipe=Recipe.parse(recipe), **how)
    assert result is not None
    return result
