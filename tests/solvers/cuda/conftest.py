"""A device without a GPU: ``from shim import HostDevice``, or the fixture ``device``."""

from __future__ import annotations

import pytest
from shim import HostDevice


@pytest.fixture
def device() -> HostDevice:
    """A fresh device with 16 GiB, none of it in use."""
    return HostDevice()
