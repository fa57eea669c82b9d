"""What tests/solvers/cuda compares on the CPU's shim, on a GPU: every verb and algorithm, recorded and not, streamed and not."""

from __future__ import annotations

import pytest
from test_cuda_detector import test_every_verb_agrees_with_the_reference as test_verbs_on_detectors
from test_cuda_frames import test_a_number_that_is_not_finite_is_found_wherever_it_lies as test_what_is_not_finite
from test_cuda_frames import test_every_verb_on_frames_agrees_with_the_reference as test_verbs_on_single_frames
from test_cuda_frames import test_numbers_of_frames_are_of_float64_on_the_host as test_types_of_numbers
from test_cuda_likelihood import test_a_step_and_a_direction_without_a_length_leave_everything_but_what_is_kept as test_no_length
from test_cuda_likelihood import test_darkness_stays_dark as test_darkness
from test_cuda_likelihood import test_every_verb_on_frames_agrees_with_the_reference as test_likelihoods
from test_cuda_likelihood import test_every_verb_on_objects_and_probes_agrees_with_the_reference as test_verbs_of_line_searches
from test_cuda_positions import test_correlation_finds_what_the_reference_finds as test_correlation
from test_cuda_positions import test_every_verb_agrees_with_the_reference as test_verbs_of_positions
from test_cuda_positions import test_waves_are_moved_by_whole_pixels_as_numpy_rolls_them as test_moved_waves
from test_cuda_sweeps import test_a_recorded_sweep_gives_the_same_bits as test_recorded_sweeps
from test_cuda_sweeps import test_every_algorithm_agrees_with_the_reference as test_algorithms
from test_cuda_sweeps import test_models_agree_with_the_reference as test_models
from test_cuda_sweeps import test_refinements_agree_with_the_reference as test_refinements
from test_cuda_sweeps import test_streamed_counts_give_the_same_bits as test_streamed_counts
from test_cuda_verbs import test_every_verb_agrees_with_the_reference as test_verbs
from test_cuda_verbs import test_verbs_know_what_rounding_left_over as test_verbs_with_rests

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]

__all__ = [
    "test_algorithms",
    "test_correlation",
    "test_darkness",
    "test_likelihoods",
    "test_models",
    "test_moved_waves",
    "test_no_length",
    "test_recorded_sweeps",
    "test_refinements",
    "test_streamed_counts",
    "test_types_of_numbers",
    "test_verbs",
    "test_verbs_of_line_searches",
    "test_verbs_of_positions",
    "test_verbs_on_detectors",
    "test_verbs_on_single_frames",
    "test_verbs_with_rests",
    "test_what_is_not_finite",
]
