"""What pacing remembers over restarts, in one small file: multipliers, costs, and traffic.

It is advice: a file that is missing or broken costs a cold start and no money, so it is replaced
whole and not flushed to the disk.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from rtb.base.errors import StoreError
from rtb.keeper.pace_budgets import Name
from rtb.ledger.commands import Scope
from rtb.pacing.curve import SLOTS, Curve
from rtb.pacing.estimate import Recent

VERSION: Final = 1
# Older than a week, and the market is another one.
AGE_S_MAX: Final = 7 * 86_400
_SCOPES: Final = frozenset(Scope)


class Kept(msgspec.Struct, frozen=True):
    """Of one budget."""

    scope: int
    key: int
    units: bool
    multiplier_e6: int
    recent: Recent


class Memory(msgspec.Struct, frozen=True):
    """The file; `curves` by time zone."""

    version: int = VERSION
    saved_s: int = 0
    budgets: list[Kept] = []
    curves: dict[str, Curve] = {}

    def multipliers(self, now_s: int) -> dict[Name, tuple[int, Recent]]:
        """Of each budget, with costs as they have faded since."""
        age_s = now_s - self.saved_s
        if not 0 <= age_s <= AGE_S_MAX:
            return {}
        return {
            Name(Scope(kept.scope), kept.key, kept.units): (
                kept.multiplier_e6,
                kept.recent.faded(age_s),
            )
            for kept in self.budgets
        }


def kept_of(name: Name, multiplier_e6: int, recent: Recent) -> Kept:
    """What is kept of a budget."""
    return Kept(name.scope, name.key, name.units, multiplier_e6, recent)


def load(path: Path) -> Memory:
    """The file, or nothing where there is none that can be read."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Memory)
    except (OSError, ValueError):
        return Memory()
    known = all(kept.scope in _SCOPES for kept in found.budgets)
    whole = all(len(one.requests) == len(one.seconds) == len(one.prior) == SLOTS
                for one in found.curves.values())  # fmt: skip
    return found if found.version == VERSION and known and whole else Memory()


def file_of(saved_s: int, budgets: Sequence[bytes], curves: Mapping[str, Curve]) -> bytes:
    """The file; `budgets` are lists of `Kept`, encoded in parts."""
    raw = msgspec.Raw(joined(budgets))
    content = {"version": VERSION, "saved_s": saved_s, "budgets": raw, "curves": curves}
    return msgspec.json.encode(content)


def joined(lists: Sequence[bytes]) -> bytes:
    """One list of JSON out of several."""
    return b"[" + b",".join(one[1:-1] for one in lists if one != b"[]") + b"]"


def replace(path: Path, content: bytes) -> None:
    """Replaces a file, whole. Raises: StoreError when it cannot be written."""
    fresh = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: {error}") from error
