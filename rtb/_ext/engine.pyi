from typing import Any

import numpy as np
import numpy.typing as npt

from rtb.base.records import Decision, Opportunity, Terms
from rtb.catalogue.snapshot import Snapshot

class Engine:
    def __init__(self, snapshot: Snapshot, model: Any = None) -> None: ...
    def decide(
        self,
        opportunity: Opportunity,
        profile: Any,
        terms: Terms,
        overlay: npt.NDArray[np.void] | bytes | None,
        now_ms: int,
        decision: Decision,
        trace: Any = None,
    ) -> None: ...
    def fall_back(
        self, opportunity: Opportunity, decision: Decision, refused: int, reason: int = ...
    ) -> None: ...
