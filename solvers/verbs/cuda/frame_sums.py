"""Numbers of each frame of a batch, on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.verbs.cuda.base import Base, blocks_for
from ptyplugin.solvers.verbs.cuda.device import Array
from ptyplugin.solvers.verbs.cuda.placing import Placed

#: Blocks that share the sums of one frame.
_PARTS = 32


class FrameSums(Base):
    """What verbs share that look at numbers of each frame."""

    def _frame_sums(self, file: str, p: Placed, numbers: int, *args: Any, function: str = "", **defines: int) -> NDArray[np.float64]:
        """(frame, numbers): the kernel writes (frame, part, numbers) partial sums, which are added up in their order."""
        shares = min(_PARTS, blocks_for(p.pixels))
        partials = self._new((p.count, shares, numbers), np.float64)
        self._run(file, (shares, p.count), partials, *args, function=function, **defines)
        return self._added(partials)

    def _added(self, partials: Array) -> NDArray[np.float64]:
        """(frame, numbers): the sums over the parts of (frame, part, numbers)"""
        return np.asarray(self.device.get(partials).sum(axis=1))
