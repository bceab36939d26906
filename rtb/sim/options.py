"""What `rtb exchange` was asked for."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from rtb.base.errors import ConfigError
from rtb.sim.feedback import Limits, Route
from rtb.sim.notices import SETTLING, Faults, Habits, Waits
from rtb.sim.pool import Target
from rtb.sim.wire import place_of

# Distinct requests that a process replays: far more than any cache of a bidder could hold warm.
POOL_SIZE: Final = 20_000


@dataclass(frozen=True, slots=True)
class Options:
    """An exchange and its run. `seconds` 0 runs until interrupted.

    settle     what bills: "burl", "impression" or "nurl", as the bidder's exchange settings say
    invoice    where to write it
    notices    whether any are sent
    """

    url: str
    rate: float = 1000.0
    seconds: float = 10.0
    connections: int = 64
    processes: int = 1
    seed: int = 1
    requests: Path | None = None
    keep_ids: bool = False
    data: Path | None = None
    pool_size: int = POOL_SIZE
    notices: bool = True
    settle: str = "burl"
    invoice: Path | None = None
    faults: Faults = field(default_factory=Faults)
    waits: Waits = field(default_factory=Waits)
    habits: Habits = field(default_factory=Habits)
    route: Route = field(default_factory=Route)
    limits: Limits = field(default_factory=Limits)

    def check(self) -> None:
        """Raises: ConfigError for what cannot be."""
        Target.of(self.url)
        if not 0 < self.rate <= 1e6:
            raise ConfigError(f"rate: expected requests a second, got {self.rate}")
        if self.seconds < 0:
            raise ConfigError(f"seconds: expected 0 or more, got {self.seconds}")
        if not 1 <= self.processes <= 64:
            raise ConfigError(f"processes: expected 1 to 64, got {self.processes}")
        if self.connections < self.processes:
            raise ConfigError(f"connections: expected one a process or more: {self.connections}")
        for reason in self._wrong_notices():
            raise ConfigError(reason)

    def _wrong_notices(self) -> Iterator[str]:
        if self.settle not in SETTLING:
            yield f"settle: expected {', '.join(SETTLING)}, got {self.settle!r}"
        for part in (self.faults, self.habits):
            for one in fields(part):
                share = getattr(part, one.name)
                if share is not None and not 0.0 <= share <= 1.0:
                    yield f"{one.name}: expected a share from 0 to 1"
        for one in fields(self.waits):
            if not 0.0 <= getattr(self.waits, one.name) < math.inf:
                yield f"{one.name}: expected milliseconds, 0 or more"
        if self.faults.elsewhere and not self.route.other:
            yield "elsewhere: needs the other node's URL"
        for url in filter(None, (self.route.base, self.route.other)):
            place_of(url)
        if self.limits.tries_max < 1:
            yield "tries_max: expected one try or more"
        if not 0.0 <= self.limits.drain_s < math.inf:
            yield "drain_s: expected seconds, 0 or more"
