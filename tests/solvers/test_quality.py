"""Held-out frames, the noise floor, and the one word on an image: right on good scans, and on scans that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import poisson

from ptyplugin.model import MemoryFrames, Progress, Recipe, Reconstruction, Scan, SolverError
from ptyplugin.solvers import Solver, solve
from ptyplugin.solvers.held_out import frames_to_hold_out, held_out_last
from ptyplugin.solvers.noise import noise_of
from ptyplugin.solvers.verdict import judge

RECIPE = "LSQML(20) + LSQML(8, object_step=0.1, probe_step=0.1)"

#: Numbers of an image that nothing speaks against.
GOOD = {
    "error": 0.009, "fitted_error": 0.009, "held_out_error": 0.01, "noise_floor": 0.006, "frames": 500.0, "overlap": 0.8,
    "good_share": 1.0, "coherent_share": 0.8, "probe_at_border": 0.02, "object_at_border": 1.3, "mean_frame_error": 0.09,
}  # fmt: skip


@pytest.fixture(scope="module")
def scan_of_81(simulate: Callable[..., Any]) -> Any:
    """81 frames of 32 x 32 px."""
    return simulate(grid=(9, 9))


def run(experiment: Any, recipe: str = RECIPE, counts: Any = None, positions_m: Any = None, geometry: Any = None, **how: Any) -> Any:
    frames = experiment.frames if counts is None else MemoryFrames(counts)
    scan = experiment.scan if positions_m is None else Scan(positions_m, experiment.scan.frame_ids)
    how = {"start_probe": experiment.probe, **how}
    result = solve(frames, scan, geometry or experiment.geometry, recipe=Recipe.parse(recipe), **how)
    assert result is not None
    return result


def plain_residuals(result: Reconstruction, counts: NDArray[Any]) -> NDArray[np.float64]:
    """(frame,) sum (sqrt(I) - |F(P O)|)^2 by its definition, in float64, far field, from nothing but the result."""
    side, residuals = result.geometry.shape[0], []
    for (y, x), frame in zip(result.positions_px.astype(int), counts, strict=True):
        waves = result.probe.astype(np.complex128) * result.object[0, y : y + side, x : x + side]
        model = np.sqrt((np.abs(np.fft.fftshift(np.fft.fft2(waves), axes=(-2, -1))) ** 2).sum(axis=0)) / side
        residuals.append(((np.sqrt(frame) - model) ** 2).sum())
    return np.array(residuals)


def test_a_few_frames_inside_the_scan_are_held_out_spread_over_it() -> None:
    random = np.random.default_rng(5)
    positions = random.uniform(0, 1e-5, (700, 2))
    held_out = frames_to_hold_out(positions, 0.03)
    assert len(held_out) == 21
    np.testing.assert_array_equal(held_out, frames_to_hold_out(positions, 0.03))
    assert positions[held_out].min() > 2e-7
    assert positions[held_out].max() < 9.8e-6
    quarters = (positions[held_out] > 5e-6) @ (2, 1)
    assert np.bincount(quarters, minlength=4).min() >= 4
    distances = np.hypot(*(positions[held_out][:, None] - positions[held_out][None]).transpose(2, 0, 1)) + np.eye(21)
    assert distances.min() > 5e-7


def test_of_few_frames_and_of_a_line_none_is_held_out() -> None:
    random = np.random.default_rng(5)
    assert not len(frames_to_hold_out(random.uniform(0, 1, (49, 2)), 0.03))
    assert len(frames_to_hold_out(random.uniform(0, 1, (50, 2)), 0.03)) == 2
    assert not len(frames_to_hold_out(random.uniform(0, 1, (500, 2)), 0.0))
    assert not len(frames_to_hold_out(np.linspace(0, 1, 500)[:, None] * np.array([[1.0, 2.0]]), 0.03))


def test_held_out_frames_come_last() -> None:
    numbers, fitted = held_out_last(np.array([3, 4, 7, 8, 9]), np.array([0, 4, 8]))
    assert numbers.tolist() == [3, 7, 9, 4, 8]
    assert fitted == 3


def test_an_impossible_share_is_told(experiment: Any) -> None:
    with pytest.raises(SolverError, match=r"held_out = 0.9: give the share .* 0 \.\. 0.5"):
        Solver(experiment.frames, experiment.scan, experiment.geometry, Recipe.parse("ePIE(1)"), held_out=0.9)


@pytest.mark.parametrize("recipe", ["LSQML(4)", "DM(3) + ePIE(2)"])
def test_the_fit_does_not_see_frames_held_out(scan_of_81: Any, recipe: str) -> None:
    held_out = frames_to_hold_out(scan_of_81.scan.positions_m[:, 0], 0.03)
    spoiled = scan_of_81.frames.counts.copy()
    spoiled[held_out] = spoiled[held_out, ::-1] * 3
    plain, other = run(scan_of_81, recipe, start_probe=None), run(scan_of_81, recipe, spoiled, start_probe=None)
    np.testing.assert_array_equal(plain.object, other.object)
    assert other.quality["fitted_error"] == pytest.approx(plain.quality["fitted_error"], rel=1e-5)
    assert other.quality["held_out_error"] > 5 * plain.quality["held_out_error"]


def test_each_error_is_over_its_frames(scan_of_81: Any) -> None:
    counts, result = scan_of_81.frames.counts, run(scan_of_81, "LSQML(12)")
    residuals, sums = plain_residuals(result, counts), counts.sum(axis=(1, 2), dtype=np.float64)
    held_out = np.isin(np.arange(81), frames_to_hold_out(scan_of_81.scan.positions_m[:, 0], 0.03))
    for name, some in {"error": held_out | True, "held_out_error": held_out, "fitted_error": ~held_out}.items():
        assert result.quality[name] == pytest.approx(residuals[some].sum() / sums[some].sum(), rel=1e-4)
    assert [event.iteration for event in result.progress if "held_out_error" in event.errors] == [10, 12]
    assert result.progress[-1].errors["held_out_error"] == result.quality["held_out_error"]
    assert run(scan_of_81, "LSQML(1)", held_out=0.0).quality.keys() == result.quality.keys() - {
        "held_out_error",
        "fitted_error",
        "held_out_frames",
    }


def test_noise_of_a_pixel() -> None:
    means = np.array([1e-6, 1e-3, 0.02, 0.3, 1.0, 2.5, 8.0, 30.0, 35.99, 36.01, 100.0, 1e6])
    counts = np.arange(3000)
    expected = [(poisson.pmf(counts, mean) * (np.sqrt(counts) - np.sqrt(mean)) ** 2).sum() for mean in means[:-1]]
    np.testing.assert_allclose(noise_of(means), [*expected, 0.25], rtol=1e-4)
    assert noise_of(np.zeros(1)) == 0


@pytest.mark.parametrize("photons", [1e3, 1e5])
def test_a_true_image_stands_at_its_noise_floor(simulate: Callable[..., Any], photons: float) -> None:
    """The model is the truth after it was found from frames without noise; then frames with noise are judged by it."""
    clean, noisy = simulate(grid=(8, 8), photons=photons, noise=False), simulate(grid=(8, 8), photons=photons)
    found = run(clean, "ePIE(60)", held_out=0.0)
    assert found.quality["error"] < 0.05 * found.quality["noise_floor"]
    measured = plain_residuals(found, noisy.frames.counts).sum() / noisy.frames.counts.sum()
    assert found.quality["noise_floor"] == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize("near_field", [False, True])
def test_good_scans_are_good(simulate: Callable[..., Any], near_field: bool) -> None:
    scan = simulate(grid=(9, 9), near_field=near_field)
    result = run(scan, start_probe=scan.probe if near_field else None)
    assert result.verdict.word == "good", result.verdict
    assert result.verdict.reasons == ()
    assert "good>" in repr(result)


def test_a_wrong_orientation_is_not_good(scan_of_81: Any) -> None:
    counts = scan_of_81.frames.counts
    for turned in (np.swapaxes(counts, 1, 2), np.roll(counts[:, ::-1], 1, 1)):
        result = run(scan_of_81, counts=np.ascontiguousarray(turned))
        assert result.verdict.word != "good"
        assert any("check orientation" in reason for reason in result.verdict.reasons)


def test_what_overlaps_much_and_is_no_image_fails(simulate: Callable[..., Any]) -> None:
    """Frames held out say nothing there: neighbours that show nearly the same explain them, whatever the image."""
    scan = simulate(grid=(9, 9), step=2.0)
    result = run(scan, "LSQML(40, momentum=0.9)", positions_m=scan.scan.positions_m[..., ::-1], start_probe=None)
    assert result.quality["held_out_error"] < 2 * result.quality["fitted_error"]
    assert result.verdict.word == "failed", result.verdict
    assert any("Too little of what changes" in reason for reason in result.verdict.reasons)


def test_the_error_of_the_mean_frame(scan_of_81: Any) -> None:
    """By its definition; of frames that differ by noise alone it is what that leaves."""
    counts = scan_of_81.frames.counts
    some = counts[~np.isin(np.arange(81), frames_to_hold_out(scan_of_81.scan.positions_m[:, 0], 0.03))].astype(np.float64)
    plain = ((np.sqrt(some) - np.sqrt(some.mean(axis=0))) ** 2).sum() / some.sum() * len(some) / (len(some) - 1)
    assert run(scan_of_81, "ePIE(1)").quality["mean_frame_error"] == pytest.approx(plain, rel=1e-5)
    alike = np.random.default_rng(0).poisson(np.broadcast_to(some.mean(axis=0), counts.shape)).astype(np.uint16)
    floor = noise_of(some.mean(axis=0)).sum() / some.mean(axis=0).sum()
    assert run(scan_of_81, "ePIE(1)", alike).quality["mean_frame_error"] == pytest.approx(floor, rel=0.05)


def test_wrong_positions_are_not_good(scan_of_81: Any) -> None:
    random, positions = np.random.default_rng(0), scan_of_81.scan.positions_m.copy()
    some = random.choice(81, 40, replace=False)
    positions[some] = positions[random.permutation(some)]
    assert run(scan_of_81, positions_m=positions).verdict.word != "good"


def test_a_wrong_distance_is_not_good(scan_of_81: Any) -> None:
    geometry = replace(scan_of_81.geometry, distance_m=2 * scan_of_81.geometry.distance_m)
    assert run(scan_of_81, geometry=geometry).verdict.word != "good"


def test_frames_that_do_not_overlap_fail(simulate: Callable[..., Any]) -> None:
    result = run(simulate(grid=(8, 8), step=30.0))
    assert result.verdict.word == "failed"
    assert any("do not overlap" in reason for reason in result.verdict.reasons)
    assert any("times worse" in reason for reason in result.verdict.reasons)


def test_too_few_iterations_are_not_good(scan_of_81: Any) -> None:
    verdict = run(scan_of_81, "LSQML(4)").verdict
    assert (verdict.word, verdict.convergence) == ("doubtful", "still falling")


@pytest.mark.parametrize(
    ("changed", "word", "said"),
    [
        ({}, "good", ""),
        ({"error": 0.02}, "doubtful", "The error 0.02 is far above what counting noise leaves"),
        ({"error": 0.3, "noise_floor": 0.25}, "good", ""),
        ({"error": 0.4, "mean_frame_error": 2.0}, "failed", "far above"),
        (
            {"error": 0.0098, "mean_frame_error": 0.02},
            "doubtful",
            "Too little of what changes from frame to frame is explained (error 0.0098;",
        ),
        ({"error": 0.0098, "mean_frame_error": 0.016}, "failed", "with nothing but their mean frame 0.016): check the axes"),
        ({"error": 0.0098, "mean_frame_error": 0.02, "held_out_error": 0.02}, "failed", "explained 2.2 times worse"),
        ({"error": 0.0079, "mean_frame_error": 0.0078}, "good", ""),
        ({"error": 0.0095, "mean_frame_error": 0.0}, "good", ""),
        ({"held_out_error": 0.02}, "doubtful", "explained 2.2 times worse"),
        ({"held_out_error": 0.09}, "failed", "explained 10.0 times worse"),
        ({"overlap": 0.3}, "doubtful", "overlap by only 0.30"),
        ({"overlap": -0.1}, "failed", "do not overlap"),
        ({"frames": 9.0}, "doubtful", "only 9 frames"),
        ({"good_share": 0.6}, "doubtful", "Only 60% of the pixels"),
        ({"coherent_share": 0.2}, "doubtful", "only 20% of the power"),
        ({"probe_at_border": 0.3}, "doubtful", "30% of the probe's power lie at the border of its frame"),
        ({"object_at_border": 9.0}, "doubtful", "9.0 times as strong"),
    ],
)
def test_what_speaks_against_an_image(changed: dict[str, float], word: str, said: str) -> None:
    verdict = judge(GOOD | changed, progress_of([0.02, 0.0101, 0.01, 0.01]), 40)
    assert verdict.word == word
    assert verdict.convergence == "converged"
    assert said in " ".join(verdict.reasons)
    assert len(verdict.reasons) == (word != "good") + ({"mean_frame_error", "held_out_error"} <= changed.keys())


def test_what_more_iterations_may_explain_is_doubtful_until_then() -> None:
    unexplained = GOOD | {"error": 0.0098, "mean_frame_error": 0.016}
    assert [judge(unexplained, progress_of(errors), 20).word for errors in ([0.01, 0.01], [0.03, 0.01])] == ["failed", "doubtful"]


def test_notes_make_doubtful() -> None:
    verdict = judge(GOOD, progress_of([0.01, 0.01]), 20, ["It diverged once."])
    assert (verdict.word, verdict.reasons, str(verdict)) == ("doubtful", ("It diverged once.",), "doubtful: It diverged once.")


@pytest.mark.parametrize(
    ("errors", "word"),
    [
        ([0.02, 0.0101, 0.01], "converged"),
        ([0.02, 0.012, 0.01], "still falling"),
        ([0.011, 0.01, 0.011], "converged"),
        ([0.011, 0.01, 0.0125], "climbing"),
        ([0.01], "still falling"),
    ],
)
def test_what_the_error_does_in_the_end(errors: list[float], word: str) -> None:
    assert judge(GOOD, progress_of(errors), 10 * len(errors)).convergence == word


def test_a_fall_that_is_larger_than_the_error_is_told_without_a_share() -> None:
    assert judge(GOOD, progress_of([0.03, 0.01]), 20).reasons == (
        "The error was still falling fast when the iterations ended: do more of them.",
    )


def test_the_last_stage_shows_whether_it_has_converged() -> None:
    """A step down between stages is no slope, and where ``error`` was measured once only, what the algorithm sees on its way tells."""
    for running, word in ((lambda n: 0.01, "converged"), (lambda n: 0.01 + 0.001 * (20 - n), "still falling")):
        stage = [Progress("", "ePIE", n, 20, 0.0, {"running_error": running(n)}) for n in range(11, 20)]
        last = Progress("", "ePIE", 20, 20, 0.0, {"running_error": running(20), "error": 0.01})
        assert judge(GOOD, [*progress_of([0.02]), *stage, last], 10).convergence == word


def progress_of(errors: list[float]) -> list[Progress]:
    """Ten iterations for each error."""
    every = range(1, 10 * len(errors) + 1)
    return [Progress("", "DM", n, len(every), 0.0, {"error": errors[n // 10 - 1]} if n % 10 == 0 else {}) for n in every]


def test_few_held_out_frames_are_allowed_more_chance() -> None:
    """Of three frames the ratio spreads further than of many, and says less."""
    ratio = {"fitted_error": 0.009, "held_out_error": 2.2 * 0.009}
    words = [judge(GOOD | ratio | {"held_out_frames": frames}, progress_of([0.01, 0.01]), 20).word for frames in (3.0, 6.0, 20.0)]
    assert words == ["good", "doubtful", "doubtful"]
