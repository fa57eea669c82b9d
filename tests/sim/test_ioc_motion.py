"""Where stages are, and what the instrument makes of it; no IOC is needed."""

from __future__ import annotations

import numpy as np
import pytest

from ptyplugin.model import DeviceError, ScanError
from ptyplugin.sim.ioc.imperfections import Imperfections
from ptyplugin.sim.ioc.instrument import GAP, Instrument
from ptyplugin.sim.ioc.motion import Path, Ramp
from ptyplugin.sim.ioc.trajectory import Trajectory

REST: tuple[Path, Path] = (Ramp.rest(0.0), Ramp.rest(0.0))


@pytest.mark.parametrize(("start", "target"), [(0.0, 10.0), (3.0, -5.0), (0.0, 0.02)])
def test_a_move_keeps_to_velocity_and_acceleration(start: float, target: float) -> None:
    ramp = Ramp(100.0, start, target, velocity=4.0, ramp_s=0.1)
    times = np.linspace(99.5, ramp.end_s + 0.5, 4001)
    at = ramp.at(times)
    assert (at[0], at[-1]) == (start, pytest.approx(target))
    speed = np.diff(at) / np.diff(times)
    assert np.abs(speed).max() <= 4.0 + 1e-6
    assert np.abs(np.diff(speed) / np.diff(times)[1:]).max() <= 4.0 / 0.1 * 1.01
    assert (speed * np.sign(target - start) >= -1e-9).all()


def test_a_long_move_takes_its_way_over_velocity_and_a_ramp() -> None:
    assert Ramp(0.0, 0.0, 10.0, velocity=4.0, ramp_s=0.1).end_s == pytest.approx(10 / 4 + 0.1)


def test_a_trajectory_is_in_the_middle_of_each_exposure_at_its_position() -> None:
    flight = Trajectory.grid(3, 5, 2.0, period_s=0.1, exposure_s=0.04)
    tracks, middle_s = flight.tracks(), flight.starts_s + 0.02
    np.testing.assert_allclose(np.stack([track.at(middle_s) for track in tracks], axis=1), flight.positions)
    speed = (tracks[1].at(middle_s + 0.02) - tracks[1].at(middle_s - 0.02)) / 0.04
    np.testing.assert_allclose(np.abs(speed), 20.0)
    assert (np.diff(flight.starts_s) >= 0.1 - 1e-12).all()
    np.testing.assert_allclose(flight.positions.mean(axis=0), 0.0, atol=1e-12)


def test_a_spiral_has_even_steps() -> None:
    flight = Trajectory.spiral(400, 0.5, period_s=0.01)
    steps = np.linalg.norm(np.diff(flight.positions, axis=0), axis=1)
    assert abs(steps[20:] - 0.5).max() < 0.05
    assert len(flight.starts_s) == 400


@pytest.mark.parametrize(
    "wrong",
    [{"positions": np.zeros((0, 2))}, {"positions": np.full((3, 2), np.nan)}, {"exposure_s": 0.2}, {"turn_s": 0.0}, {"line_length": -1}],
)
def test_what_cannot_be_flown_is_refused(wrong: dict[str, object]) -> None:
    good = {"positions": np.zeros((3, 2)), "exposure_s": 0.01, "period_s": 0.1}
    with pytest.raises(ScanError, match="trajectory"):
        Trajectory(**{**good, **wrong})  # type: ignore[arg-type]


def test_a_stalled_stage_stands_still_from_there_on() -> None:
    flight = Trajectory.grid(1, 20, 1.0, period_s=0.1)
    track = flight.tracks()[1].stalled(flight.starts_s[7])
    at = track.at(flight.starts_s + 0.05)
    np.testing.assert_allclose(at[:7], flight.positions[:7, 1])
    np.testing.assert_allclose(np.ptp(at[7:]), 0.0, atol=1e-12)


def test_a_perfect_instrument_is_exact() -> None:
    instrument = Instrument(Imperfections())
    times = np.linspace(0, 1, 50)
    np.testing.assert_array_equal(instrument.encoders_m(REST, times), np.zeros((50, 2)))
    assert instrument.flicker() == 1.0


def test_vibration_noise_and_flicker_are_as_strong_as_asked() -> None:
    instrument = Instrument(Imperfections(jitter_m=2e-8, encoder_noise_m=1e-8, beam_flicker=0.05))
    times = np.linspace(0, 100, 20000)
    true = instrument.stages_m(REST, times)
    np.testing.assert_allclose(true.std(axis=0), 2e-8, rtol=0.05)
    np.testing.assert_allclose((instrument.encoders_m(REST, times) - true).std(), 1e-8, rtol=0.05)
    np.testing.assert_allclose(np.std([instrument.flicker() for _ in range(4000)]), 0.05, rtol=0.05)


def test_lines_begin_off_and_settle() -> None:
    flight = Trajectory.grid(2, 50, 0.1, period_s=0.01)
    instrument = Instrument(Imperfections(settling_m=1e-6, settling_s=0.02))
    off = instrument.stages_m(flight.tracks(), flight.starts_s + 0.005) - flight.positions * 1e-6
    expected = -1e-6 * np.exp(-(0.005 + 0.01 * np.arange(50)) / 0.02)
    np.testing.assert_allclose(off, np.tile(expected, 2)[:, None].repeat(2, axis=1), atol=1e-15)


def test_no_encoder_sees_the_drift_but_the_frames_do() -> None:
    still, drifting = Instrument(Imperfections()), Instrument(Imperfections(drift_m_per_s=1e-6))
    at = drifting.expose(REST, 2.0, 0.01)
    np.testing.assert_array_equal(at.position_m, [0.0, 0.0])
    expected = still.camera.expected(np.full(2, 2.005e-6))
    lit = expected > 20
    assert ((at.counts - expected)[lit] ** 2 / expected[lit]).mean() == pytest.approx(1.0, abs=0.1)


def test_dead_pixels_and_gaps() -> None:
    counts = Instrument(Imperfections(dead_pixels=200, gap_px=4), photons=1e9).expose(REST, 0.0, 0.01).counts
    assert (counts[62:66] == GAP).all()
    assert (counts[:, 62:66] == GAP).all()
    assert (counts[61, :60] != GAP).any()
    plain = Instrument(Imperfections(), photons=1e9).expose(REST, 0.0, 0.01).counts
    assert 100 < ((counts == 0) & (plain > 20)).sum() <= 200


def test_another_energy_is_another_pixel() -> None:
    instrument = Instrument(Imperfections())
    pixel_m = instrument.camera.geometry.object_pixel_m[0]
    instrument.set_energy(16000.0)
    assert instrument.camera.geometry.object_pixel_m[0] == pytest.approx(pixel_m / 2)


def test_imperfections_are_read_from_texts() -> None:
    assert Imperfections.parse(["jitter_m=2e-8", "gap_px=3"]) == Imperfections(jitter_m=2e-8, gap_px=3)
    for wrong in ("rain=1", "jitter_m", "jitter_m=much", "jitter_m=-1", "substeps=0", "gap_px=1.5", "settling_s=0", "jitter_m=nan"):
        with pytest.raises(DeviceError, match="imperfection"):
            Imperfections.parse([wrong])
