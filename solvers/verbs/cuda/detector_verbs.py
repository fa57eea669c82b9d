"""The part of CudaVerbs that is about the detector: background and intensity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cuda.base import blocks_for, parts
from ptyplugin.solvers.verbs.cuda.device import Array
from ptyplugin.solvers.verbs.cuda.frame_sums import FrameSums


class DetectorVerbs(FrameSums):
    """See ptyplugin.solvers.verbs.Verbs for the equations."""

    _detector: Any

    def background_sums(self, num: Array, den: Array, A: Any, b: Batch, floor: float) -> None:
        self._settle()
        p, (array, owed) = self._placing.placed(b), parts(A)
        arguments = num, den, array, np.int32(p.count), np.float32(floor), *self._detector(array, owed, p)
        if p.count:
            self._run("background_sums", (blocks_for(p.pixels),), *arguments, COUNTS_FLOAT=p.is_float)

    def intensity_sums(self, A: Any, b: Batch, floor: float) -> NDArray[np.float64]:
        self._settle()
        p, (array, owed) = self._placing.placed(b), parts(A)
        arguments = array, np.float32(floor), *self._detector(array, owed, p)
        return self._frame_sums("intensity_sums", p, 2, *arguments, COUNTS_FLOAT=p.is_float)
