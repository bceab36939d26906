"""What pacing remembers over restarts, in one small file: multipliers, costs, and traffic.

It is advice: a file that is missing or broken costs a cold start and no money, so it is replaced
whole and not flushed to the disk.
"""

from pathlib import Path
from typing import Final

import msgspec

from rtb.base.errors import StoreError
from rtb.keeper.pace_budgets import Name
from rtb.ledger.commands import Scope
from rtb.pacing.curve import SLOTS, Curve
from rtb.pacing.estimate import HALF_LIFE_S, NOTHING, Recent

VERSION: Final = 1
# Older than a week, and the market is another one.
AGE_S_MAX: Final = 7 * 86_400


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """Of one budget; costs as in `pacing.estimate.Recent`."""

    scope: int
    key: int
    units: bool
    multiplier_e6: int
    recent: tuple[float, float, float, float, float, float, float, float]


class Traffic(msgspec.Struct, frozen=True):
    """Of one time zone: requests and seconds of each hour of the week."""

    requests: tuple[float, ...]
    seconds: tuple[float, ...]


class Memory(msgspec.Struct, frozen=True):
    """The file."""

    version: int = VERSION
    saved_s: int = 0
    budgets: list[Kept] = []
    traffic: dict[str, Traffic] = {}

    def multipliers(self, now_s: int) -> dict[Name, tuple[int, Recent]]:
        """Of each budget, with costs as they have faded since."""
        age_s = now_s - self.saved_s
        if not 0 <= age_s <= AGE_S_MAX:
            return {}
        fade = 0.5 ** (age_s / HALF_LIFE_S)
        return {
            Name(Scope(kept.scope), kept.key, kept.units): (
                kept.multiplier_e6,
                Recent(*(value * fade for value in kept.recent)),
            )
            for kept in self.budgets
        }

    def curves(self) -> dict[str, Curve]:
        """Of each zone, whatever its age."""
        return {
            zone: Curve(one.requests, one.seconds)
            for zone, one in self.traffic.items()
            if len(one.requests) == len(one.seconds) == SLOTS
        }


def kept_of(name: Name, multiplier_e6: int, recent: Recent = NOTHING) -> Kept:
    """What is kept of a budget."""
    costs = (
        recent.spent_nanos, recent.reserved_nanos, recent.bids, recent.wins,
        recent.open_requests, recent.requests, recent.seconds, recent.peak,
    )  # fmt: skip
    return Kept(name.scope, name.key, name.units, multiplier_e6, costs)


def load(path: Path) -> Memory:
    """The file, or nothing where there is none that can be read."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Memory)
    except (OSError, ValueError):
        return Memory()
    known = all(kept.scope in frozenset(Scope) for kept in found.budgets)
    return found if found.version == VERSION and known else Memory()


def replace_json(path: Path, content: object) -> None:
    """Replaces a file, whole. Raises: StoreError when it cannot be written."""
    fresh = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(msgspec.json.encode(content))
        fresh.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: {error}") from error
