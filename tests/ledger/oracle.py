"""The books again, as dumb as can be: lists of things, and every figure added up when asked for."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from rtb.ledger.commands import (
    Adjust,
    Command,
    Expire,
    Forget,
    Grant,
    Outcome,
    Post,
    Return,
    Scope,
    SetLimit,
    Take,
    Void,
)  # fmt: skip
from tests.ledger.books import ADVERTISER, AUTUMN, CAMPAIGN, HATS, SHOES

O = Outcome  # noqa: E741
INFINITE = 1 << 100
BERLIN = ZoneInfo("Europe/Berlin")
Place = tuple[int, int, int]  # line item, flight, day
Thing = dict[str, Any]


def place_of(line_item: int, time_s: int) -> Place:
    inside = AUTUMN.start_s <= time_s < AUTUMN.end_s
    local = datetime.fromtimestamp(time_s, UTC).astimezone(BERLIN)
    return line_item, AUTUMN.key if inside else 0, local.date().toordinal()


def within(scope: Scope, key: int, day: int) -> Callable[[Place], bool]:
    """Whether a place is in a scope; both line items belong to the one campaign."""
    return {
        Scope.LINE_ITEM: lambda place: place[0] == key,
        Scope.LINE_ITEM_DAY: lambda place: place[0] == key and place[2] == day,
        Scope.FLIGHT: lambda place: place[1] == key,
        Scope.CAMPAIGN: lambda place: key == CAMPAIGN,
        Scope.CAMPAIGN_DAY: lambda place: key == CAMPAIGN and place[2] == day,
        Scope.ADVERTISER: lambda place: key == ADVERTISER,
    }[scope]


class Oracle:
    """Things: leases, holds, spent amounts and overspent ones; one dict each."""

    def __init__(self) -> None:
        self.things: list[Thing] = []
        self.limits: dict[tuple[Scope, int], tuple[int, int]] = {}
        self.fates: dict[int, Thing] = {}
        self.references: list[str] = []
        self.forgotten_s = 0

    def total(self, kinds: str, where: Callable[[Place], bool]) -> tuple[int, int]:
        """Money and units of things of some kinds (by first letter) in some places."""
        found = [one for one in self.things if one["kind"][0] in kinds and where(one["place"])]
        return sum(one["nanos"] for one in found), sum(one["units"] for one in found)

    def room(self, place: Place) -> tuple[int, int, Scope]:
        """As `Account.room`, which looks at scopes in the same order."""
        line_item, flight, day = place
        keys = [(Scope.LINE_ITEM, line_item), (Scope.LINE_ITEM_DAY, line_item),
                (Scope.CAMPAIGN, CAMPAIGN), (Scope.CAMPAIGN_DAY, CAMPAIGN),
                (Scope.ADVERTISER, ADVERTISER), (Scope.FLIGHT, flight)]  # fmt: skip
        money, units = [], []
        for scope, key in keys:
            limit = self.limits.get((scope, key), (INFINITE, INFINITE))
            drawn = self.total("lhs", within(scope, key, day))
            money.append(limit[0] - drawn[0] if limit[0] < INFINITE else INFINITE)
            units.append(limit[1] - drawn[1] if limit[1] < INFINITE else INFINITE)
        scarce = units.index(min(units)) if min(units) <= 0 else money.index(min(money))
        return min(money), min(units), keys[scarce][0]

    def put(self, kind: str, place: Place, nanos: int, units: int, **more: object) -> None:
        self.things.append({"kind": kind, "place": place, "nanos": nanos, "units": units, **more})

    def repay(self, place: Place) -> None:
        over = self.total("o", lambda other: other == place)
        room = self.room(place)
        nanos, units = (max(min(over[n], room[n]), 0) for n in (0, 1))
        self.put("spent", place, nanos, units)
        self.put("over", place, -nanos, -units)

    def hold_of(self, bid: int) -> Thing | None:
        found = [one for one in self.things if one["kind"] == "hold" and one["bid"] == bid]
        return found[0] if found else None

    def charge(self, place: Place, bid: int, nanos: int, units: int) -> tuple[int, int]:
        """Takes from the lease what it has; more than one lease of a place and worker is one."""
        got = [0, 0]
        for lease in self.things:
            if (lease["kind"], lease["place"]) == ("lease", place) and (
                lease["worker"] == bid // 65_536 % 65_536
            ):
                for index, (unit, wanted) in enumerate((("nanos", nanos), ("units", units))):
                    part = min(lease[unit], wanted - got[index])
                    lease[unit] -= part
                    got[index] += part
        return got[0], got[1]

    def reserve(self, place: Place, bid: int, nanos: int, units: int) -> tuple[int, int]:
        """Lease first, then budget. Returns what was found; the caller keeps it as he likes."""
        got = self.charge(place, bid, nanos, units)
        self.put("hold", place, *got, bid=-1)  # so that the budget does not see it free
        room = self.room(place)
        self.things.pop()
        return tuple(  # type: ignore[return-value]
            have + max(min(want - have, left), 0)
            for have, want, left in zip(got, (nanos, units), room, strict=False)
        )

    def spend(self, place: Place, nanos: int, units: int, held: tuple[int, int]) -> bool:
        """Books a bill whose hold was just taken off the list; whether some of it is over."""
        rest = [max(want - have, 0) for want, have in zip((nanos, units), held, strict=True)]
        self.put("spent", place, nanos - rest[0], units - rest[1])
        if held[0] > nanos or held[1] > units:
            # what comes back pays for old overspend, before the rest of this bill
            self.repay(place)
        room = self.room(place)
        paid = [max(min(want, left), 0) for want, left in zip(rest, room, strict=False)]
        self.put("spent", place, paid[0], paid[1])
        self.put("over", place, rest[0] - paid[0], rest[1] - paid[1])
        return paid != rest

    # -- commands ----------------------------------------------------------------------------------

    def __call__(self, command: Command) -> Outcome:
        return getattr(self, type(command).__name__.lower())(command)  # type: ignore[no-any-return]

    def setlimit(self, c: SetLimit) -> Outcome:
        new = (INFINITE if c.nanos is None else c.nanos, INFINITE if c.units is None else c.units)
        if new == self.limits.get((c.scope, c.key), (INFINITE, INFINITE)):
            return O.NOTHING
        self.limits[c.scope, c.key] = new
        days = {one["place"][2] for one in self.things} or {0}
        drawn = [self.total("lhs", within(c.scope, c.key, day)) for day in days]
        below = any(one[0] > new[0] or one[1] > new[1] for one in drawn)
        return O.LIMIT_BELOW if below else O.LIMIT_SET

    def grant(self, c: Grant) -> Outcome:
        place = place_of(c.line_item, c.at_s)
        self.repay(place)
        room_nanos, room_units, scarce = self.room(place)
        nanos, units = min(c.nanos, room_nanos), max(min(c.units, room_units), 0)
        needs = max(c.least, 1 if c.nanos else 0)
        if nanos < needs or (c.units > 0 and units <= 0):
            return O["EXHAUSTED_" + scarce.name]
        nanos = max(nanos, 0)
        self.put("lease", place, nanos, units, worker=c.worker)
        return O.GRANTED if (nanos, units) == (c.nanos, c.units) else O.GRANTED_PART

    def return_(self, c: Return) -> Outcome:
        gone = [
            one for one in self.things
            if one["kind"] == "lease" and one["worker"] == c.worker
            and c.line_item in (0, one["place"][0])
        ]  # fmt: skip
        for place in dict.fromkeys(one["place"] for one in gone):
            self.things = [one for one in self.things if one not in gone or one["place"] != place]
            self.repay(place)
        return O.RETURNED if gone else O.NOTHING

    def take(self, c: Take) -> Outcome:
        fate = self.fates.get(c.bid)
        if self.hold_of(c.bid) or (fate and fate["seen"]):
            return O.DUPLICATE
        if c.bid >> 32 < self.forgotten_s:
            return O.TOO_OLD
        place = place_of(c.line_item, c.bid >> 32)
        if fate:
            self.charge(place, c.bid, c.nanos, c.units)
            self.repay(place)
            fate["seen"] = True
            return O.TAKEN_SETTLED
        before = self.total("l", lambda other: other == place)
        got = self.reserve(place, c.bid, c.nanos, c.units)
        after = self.total("l", lambda other: other == place)
        self.put("hold", place, *got, bid=c.bid, deadline_s=c.deadline_s)
        if got != (c.nanos, c.units):
            return O.TAKEN_SHORT
        leased = (before[0] - after[0], before[1] - after[1]) == got
        return O.TAKEN if leased else O.TAKEN_UNGRANTED

    def post(self, c: Post) -> Outcome:
        fate = self.fates.get(c.bid)
        if fate and fate["booked"] is not None:
            return O.DUPLICATE if fate["booked"] == c.nanos else O.DUPLICATE_OTHER_PRICE
        if c.nanos > c.bid_nanos:
            return O.ABOVE_BID
        hold = self.hold_of(c.bid)
        if hold:
            if hold["place"][0] != c.line_item:
                return O.OTHER_LINE_ITEM
            self.things.remove(hold)
            self.fates[c.bid] = {"seen": True, "booked": c.nanos}
            held = (hold["nanos"], hold["units"])
            return O.POSTED_OVER if self.spend(hold["place"], c.nanos, c.units, held) else O.POSTED
        if c.bid >> 32 < self.forgotten_s:
            return O.TOO_OLD
        place = place_of(c.line_item, c.bid >> 32)
        seen, held = bool(fate and fate["seen"]), (0, 0)
        if not seen and c.reserve_nanos:
            held, seen = self.reserve(place, c.bid, c.reserve_nanos, c.units), True
        self.fates[c.bid] = {"seen": seen, "booked": c.nanos}
        over = self.spend(place, c.nanos, c.units, held)
        if fate:
            return O.LATE_OVER if over else O.LATE
        return O.POSTED_OVER if over else O.POSTED_UNSEEN

    def void(self, c: Void) -> Outcome:
        fate = self.fates.get(c.bid)
        if fate:
            return O.DUPLICATE if fate["booked"] is None else O.ALREADY_POSTED
        hold = self.hold_of(c.bid)
        if hold:
            if hold["place"][0] != c.line_item:
                return O.OTHER_LINE_ITEM
            self.drop(hold)
            return O.VOIDED
        if c.bid >> 32 < self.forgotten_s:
            return O.TOO_OLD
        self.fates[c.bid] = {"seen": False, "booked": None}
        return O.VOIDED_UNSEEN

    def drop(self, *holds: Thing) -> None:
        """Ends holds of one place."""
        for hold in holds:
            self.things.remove(hold)
            self.fates[hold["bid"]] = {"seen": True, "booked": None}
        self.repay(holds[0]["place"])

    def expire(self, c: Expire) -> Outcome:
        due = [one for one in self.things if one["kind"] == "hold" and one["deadline_s"] <= c.now_s]
        for place in sorted({one["place"] for one in due}):
            self.drop(*(one for one in due if one["place"] == place))
        return O.EXPIRED if due else O.NOTHING

    def forget(self, c: Forget) -> Outcome:
        if c.before_s <= self.forgotten_s:
            return O.NOTHING
        self.forgotten_s = c.before_s
        self.fates = {bid: one for bid, one in self.fates.items() if bid >> 32 >= c.before_s}
        return O.FORGOTTEN

    def adjust(self, c: Adjust) -> Outcome:
        if c.reference in self.references:
            return O.DUPLICATE
        place = place_of(c.line_item, c.at_s)
        spent = self.total("so", lambda other: other == place)
        if spent[0] + c.nanos < 0 or spent[1] + c.units < 0:
            return O.ABOVE_POSTED
        self.references.append(c.reference)
        if c.nanos < 0 or c.units < 0:
            over = self.total("o", lambda other: other == place)
            back = min(-c.nanos, over[0]), min(-c.units, over[1])
            self.put("over", place, -back[0], -back[1])
            self.put("spent", place, c.nanos + back[0], c.units + back[1])
            self.repay(place)
            return O.ADJUSTED
        return O.ADJUSTED_OVER if self.spend(place, c.nanos, c.units, (0, 0)) else O.ADJUSTED

    def figures(self, places: Iterable[Place]) -> dict[Place, list[tuple[int, int]]]:
        """Granted, pending, posted and over of each place."""
        return {
            place: [self.total(kind, lambda other, place=place: other == place) for kind in "lhso"]
            for place in places
        }


setattr(Oracle, "return", Oracle.return_)
LINE_ITEMS = (SHOES, HATS)
