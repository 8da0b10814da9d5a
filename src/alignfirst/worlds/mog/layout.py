"""How a mixture lies in memory: `theta[5, K]`, float32, runs in front. The kernel is slow to import."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
LOGITS, MEAN, LOG_SD = 0, 1, 3  # first row of each: logits; means x, y; log standard deviations x, y
