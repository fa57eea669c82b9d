"""Errors on their way from a rank to the daemon."""

from __future__ import annotations

import json

import pytest

from ptyplugin.model import CatalogAway, CatalogError, DeviceBusy, DiskError, FramesError, LedgerError, PtypluginError, SolverError
from ptyplugin.service.wire import error_of, failure_fields
from ptyplugin.solvers.verbs.cuda.device import DeviceLost


@pytest.mark.parametrize("kind", [CatalogAway, CatalogError, DeviceBusy, DeviceLost, DiskError, SolverError])
def test_errors_that_decide_about_another_try_stay_what_they_are(kind: type[PtypluginError]) -> None:
    arrived = error_of(json.loads(json.dumps(failure_fields(kind("the reason.")))))
    assert (type(arrived), str(arrived)) == (kind, "the reason.")


@pytest.mark.parametrize("kind", [FramesError, LedgerError, PtypluginError])
def test_all_others_are_failures_of_the_job(kind: type[PtypluginError]) -> None:
    arrived = error_of(json.loads(json.dumps(failure_fields(kind("the reason.")))))
    assert (type(arrived), str(arrived)) == (SolverError, "the reason.")
