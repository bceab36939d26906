from typing import Any

from rtb.base.records import Decision, Opportunity, Terms
from rtb.catalogue.snapshot import Snapshot

class Engine:
    def __init__(self, snapshot: Snapshot, model: Any = None) -> None: ...
    def decide(
        self,
        opportunity: Opportunity,
        profile: Any,
        terms: Terms,
        paused: bytes | memoryview | None,
        now_ms: int,
        decision: Decision,
        trace: Any = None,
    ) -> None: ...
