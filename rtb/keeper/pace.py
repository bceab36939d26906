"""Pacing on a node: every budget's controller, and what line items are told on the money board.

    look      requests, bids and what they reserve, on the boards
    step      the controller of each budget whose counts say something new
    tell      each line item the tightest of its budgets, where that has changed
    report    now and then: figures for people, and what a restart should not forget

One such round is spread over the keeper's turns: a turn does `work_max` of it and no more. So with
very many line items that bid at the same time a round only takes longer, and controllers are told
how long. A budget whose counts stand still is stepped seldom: time moves its target, and the step
after a long wait is like any other (`Tuning.step_s`).

Nothing here is needed for budgets to hold: the books do that. A keeper without pacing spends too
early, never too much.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from rtb.base.errors import StoreError
from rtb.base.records import MULTIPLIER_E6_ONE, PARTICIPATION_E4_ALL
from rtb.catalogue.snapshot import Snapshot
from rtb.keeper import pace_memory, publish
from rtb.keeper.chart import Plan
from rtb.keeper.pace_budgets import Aim, Budget, Name, aim_of, budgets_of
from rtb.keeper.pace_counts import Counts
from rtb.keeper.pace_memory import kept_of
from rtb.ledger.accounts import Balance, State
from rtb.ledger.commands import Scope
from rtb.pacing import controller, curve
from rtb.pacing.estimate import NOTHING, Observed, Recent, together
from rtb.pacing.goal import DEFAULT, Control, Mode, Tuning, tightest
from rtb.pacing.schedule import ONE_E6, Shape, pacing_error_e6
from rtb.stores.board import FUNNEL_SAMPLE, Board
from rtb.stores.board_money import NO_SLOT, MoneyBoard

# Only the last few accounts of a line item, days or flights, have money lent or in flight.
RECENT_ACCOUNTS: Final = 4
# What a controller's step and an hour of a schedule cost, in looks at a budget: measured.
_STEP_WORK: Final = 12
_HOURS_A_WORK: Final = 4
# Of a report, some 8 ms.
_ROWS_A_TURN: Final = 500
_TUNING: Final = replace(DEFAULT, sample=FUNNEL_SAMPLE)
_CONTROL_ALL: Final = Control(MULTIPLIER_E6_ONE, ONE_E6, Mode.FINISH)


@dataclass(frozen=True)
class Settings:
    """What a node sets for its pacing.

    pace_ms    1,000: between two rounds
    work_max   1,000: looks at budgets in a turn, a step counting as twelve; some 8 ms
    idle_s     10: between steps where only requests came, or a throttle waits for its time
    still_s    30: between steps where nothing came
    report_ms  5,000: between two reports
    learn_s    60: between two looks at the traffic
    """

    pace_ms: int = 1_000
    work_max: int = 1_000
    idle_s: int = 10
    still_s: int = 30
    report_ms: int = 5_000
    learn_s: int = 60
    tuning: Tuning = _TUNING


class Row(msgspec.Struct, frozen=True):
    """How one line item is paced, for people. Amounts in nanos, or impressions where it says so.

    scope     of the budget that holds it back most; "" where no budget is paced: then `budget` and
              `target` are 0, and `spent` is all that it ever spent
    error_e6  (spent - target) / budget
    """

    line_item: str
    name: str
    mode: str
    scope: str
    impressions: bool
    spent: int
    pending: int
    target: int
    budget: int
    error_e6: int
    multiplier_e6: int
    participation_e4: int


@dataclass(frozen=True)
class Summary:
    """All of them: how many in each mode, and pacing errors in millionths of the budget."""

    modes: dict[Mode, int]
    worst_e6: int
    mean_e6: int


Key = tuple[Name, int]  # a budget, and the day of a daily one


@dataclass
class _Pacer:
    """One budget and its controller.

    keys     of its line items
    control  what its controller said; that of `state` is what its line item did, if it has others
    stepped  whether it ever was
    error_e6 (spent - target) / budget at the last step
    """

    budget: Budget
    keys: tuple[int, ...]
    aim: Aim
    state: controller.State
    seen: Observed
    control: Control
    stepped: bool = False
    error_e6: int = 0

    def measure(self) -> None:
        """Notes the pacing error of what was seen; more than planned is positive."""
        target, spent = self.target(), self.seen.spent_nanos
        error = min(pacing_error_e6(spent, target, self.budget.amount), 1000 * ONE_E6)
        self.error_e6 = error if spent >= target else -error

    def target(self) -> int:
        return self.aim.goal.schedule.target_nanos(self.budget.amount, self.seen.now_s)


class Pacers:
    """The controllers of one node. `serve` what is served, then `turn` in every turn."""

    def __init__(
        self,
        board: Board,
        money: MoneyBoard,
        memory: Path,
        report: Path,
        settings: Settings = Settings(),
    ) -> None:
        """memory: the file that restarts go on from; report: the file for people."""
        self._money, self._settings = money, settings
        self._memory_path, self._report_path = memory, report
        self._counts = Counts(board, money)
        kept = pace_memory.load(memory)
        self._kept, self._curves = kept, dict(kept.curves)
        self._weights: dict[str, tuple[int, ...]] = {}
        self._plans: list[tuple[int, Plan]] = []
        self._keys: list[int] = []
        self._pacers: list[_Pacer] = []
        self._of_item: list[list[_Pacer]] = []
        self._round: Iterator[None] | None = None
        self._telling: Iterator[None] | None = None
        self._began_ms = self._told_ms = 0
        self._round_s = 1
        self._learned: tuple[int, int] | None = None  # when, and requests by then
        self.own: dict[Key, Observed] = {}  # what this node has seen
        self._elsewhere: Mapping[Key, Observed] = {}
        self._fresh: set[Key] = set()
        self.fault = ""  # of the last report; "" when it went well

    # -- what is served ----------------------------------------------------------------------------

    def serve(
        self,
        snapshot: Snapshot,
        plans: Mapping[int, Plan],
        state: State,
        slots: Mapping[int, int],
        now_ms: int,
    ) -> None:
        """Paces the line items of a snapshot; to be called after their budgets were charted.

        plans: as `chart.plans_of` has them; slots: where they stand on the money board.
        Controllers of budgets that stay go on.
        """
        self._plans = list(plans.items())
        rows = [plan.row for _, plan in self._plans]
        creatives = snapshot["line_items"]["creatives_count"].tolist()
        self._keys = [key for key, _ in self._plans]
        self._counts.serve(self._keys, rows, slots, [creatives[row] for row in rows])
        for _, plan in self._plans:
            self._curves.setdefault(plan.zone, curve.Curve())
        self._weigh()
        before = {pacer.budget.name: pacer for pacer in self._pacers}
        kept = self._kept.multipliers(now_ms // 1000)
        self._pacers, self._of_item = [], [[] for _ in self._plans]
        for budget in budgets_of(snapshot, self._plans):
            pacer = self._begin(budget, before.get(budget.name), kept, state, now_ms // 1000)
            self._pacers.append(pacer)
            for place in budget.members:
                if self._plans[place][1].shape is not Shape.ASAP:
                    self._of_item[place].append(pacer)
        self._round = self._telling = None
        for place, pacers in enumerate(self._of_item):
            if not pacers:
                self._tell(place, _CONTROL_ALL)
            elif self._is_new(place):
                self._tell(place, self._joined(place))

    def _begin(
        self,
        budget: Budget,
        before: _Pacer | None,
        kept: Mapping[Name, tuple[int, Recent]],
        state: State,
        now_s: int,
    ) -> _Pacer:
        """A budget's controller: the one it had, one that remembers, or one that probes."""
        aim = aim_of(budget, now_s, self._weights)
        keys = tuple(self._keys[place] for place in budget.members)
        seen = self._observed(budget, aim, state, now_s)
        if before is None:
            tuning = self._settings.tuning
            multiplier_e6, recent = kept.get(budget.name) or (self._standing(budget), NOTHING)
            own = controller.begin(seen, aim.goal, tuning, multiplier_e6, recent)
            return _Pacer(budget, keys, aim, own, seen, own.control)
        if before.keys != keys:  # its sums are of others now
            own = replace(before.state, seen=seen, mark=seen, open_requests=0.0)
            return _Pacer(budget, keys, aim, own, seen, before.control)
        return _Pacer(budget, keys, aim, before.state, before.seen, before.control)

    def _standing(self, budget: Budget) -> int | None:
        """The multiplier that another keeper left on the board, if it had found one."""
        slot = int(self._counts.slots[budget.members[0]])
        if len(budget.members) > 1 or slot == NO_SLOT:
            return None
        multiplier_e6 = int(self._money.multiplier_e6[slot])
        whole = self._money.participation_e4[slot] == PARTICIPATION_E4_ALL
        return multiplier_e6 if whole and multiplier_e6 < MULTIPLIER_E6_ONE else None

    def _is_new(self, place: int) -> bool:
        """Whether a line item has to wait for its first step: nobody held it back so far, and it is
        not known to need none.
        """
        slot = int(self._counts.slots[place])
        said = int(self._money.multiplier_e6[slot]), int(self._money.participation_e4[slot])
        needs = self._joined(place).multiplier_e6 < MULTIPLIER_E6_ONE
        return needs and said == (MULTIPLIER_E6_ONE, PARTICIPATION_E4_ALL)

    def hear(self, elsewhere: Mapping[Key, Observed]) -> None:
        """What other nodes have seen of the budgets that they share with this one: all pacers then
        see the same, and keep one plan together."""
        self._fresh |= elsewhere.keys() - self._elsewhere.keys()
        self._elsewhere = elsewhere

    # -- a round -----------------------------------------------------------------------------------

    def turn(self, state: State, now_ms: int) -> None:
        """A part of a round, or else of a report; begins them when it is time.

        state: the books, only looked at.
        """
        if self._round is None and not 0 <= now_ms - self._began_ms < self._settings.pace_ms:
            self._began_ms = now_ms
            self._round = self._rounds(state, now_ms // 1000)
        if self._round is not None:
            for _ in self._round:
                return
            self._round = None
            self._round_s = max(-(-(now_ms - self._began_ms) // 1000), 1)
            return
        if self._telling is None and (not 0 <= now_ms - self._told_ms < self._settings.report_ms):
            self._told_ms = now_ms
            self._telling = self._report(state, now_ms // 1000)
        for _ in self._telling or ():
            return
        self._telling = None

    def _rounds(self, state: State, now_s: int) -> Iterator[None]:
        """All parts of one round."""
        for worker in self._counts.workers():
            self._counts.look_at(worker)
            yield
        self._counts.look()
        self._learn(now_s)
        yield from self._step_all(state, now_s)

    def _step_all(self, state: State, now_s: int) -> Iterator[None]:
        pace_s = -(-self._settings.pace_ms // 1000)
        tuning = replace(self._settings.tuning, step_s=max(pace_s, self._round_s))
        work = 0
        for pacer in self._pacers:
            work += self._look(pacer, state, tuning, now_s)
            if work >= self._settings.work_max:
                work = 0
                yield

    def _look(self, pacer: _Pacer, state: State, tuning: Tuning, now_s: int) -> int:
        """Looks at a budget, and steps its controller if there is a reason; returns the work."""
        work = len(pacer.budget.members)
        turned = not pacer.aim.from_s <= now_s < pacer.aim.until_s
        if turned:
            pacer.aim = aim_of(pacer.budget, now_s, self._weights)
            work += len(pacer.aim.goal.schedule.traffic) // _HOURS_A_WORK
        seen = self._observed(pacer.budget, pacer.aim, state, now_s)
        if (pacer.budget.name, pacer.aim.day) in self._fresh:  # what is new is long past
            self._fresh.discard((pacer.budget.name, pacer.aim.day))
            pacer.state = replace(pacer.state, seen=seen, mark=seen, open_requests=0.0)
            pacer.seen = seen
        waits = pacer.stepped and not turned
        if waits and not self._says_something(pacer.seen, seen, pacer.control):
            return work
        pacer.seen, pacer.stepped = seen, True
        pacer.state, pacer.control = controller.step(pacer.state, seen, pacer.aim.goal, tuning)
        pacer.measure()
        for place in pacer.budget.members:
            if self._of_item[place]:
                self._hold(place)
        return work + _STEP_WORK

    def _says_something(self, before: Observed, seen: Observed, control: Control) -> bool:
        """Whether a step would do something that cannot wait."""
        waited_s = abs(seen.now_s - before.now_s)
        if seen.bids != before.bids or (
            (seen.spent_nanos, seen.pending_nanos) != (before.spent_nanos, before.pending_nanos)
        ):
            return waited_s > 0
        some = seen.requests_eligible != before.requests_eligible
        held = 0 < control.participation_e6 < ONE_E6 or control.mode is Mode.PROBE
        wait_s = self._settings.idle_s if some or held else self._settings.still_s
        return waited_s >= wait_s

    def _hold(self, place: int) -> None:
        """Tells a line item the tightest of its budgets, and those that are its own, too: what its
        requests cost is learned from those it took part in.
        """
        control, pacers = self._joined(place), self._of_item[place]
        self._tell(place, control)
        for pacer in pacers if len(pacers) > 1 else ():
            if len(pacer.keys) == 1 and pacer.state.control != control:
                pacer.state = replace(pacer.state, control=control)

    def _joined(self, place: int) -> Control:
        """What all budgets of a line item allow."""
        pacers = self._of_item[place]
        control = pacers[0].control
        for pacer in pacers[1:]:
            control = tightest(control, pacer.control)
        return control

    def _tell(self, place: int, control: Control) -> None:
        """Writes a line item's pacing on the board, if it changed."""
        slot = int(self._counts.slots[place])
        if slot == NO_SLOT:
            return
        money, part_e4 = self._money, control.participation_e6 // (ONE_E6 // PARTICIPATION_E4_ALL)
        said = int(money.multiplier_e6[slot]), int(money.participation_e4[slot])
        if said != (control.multiplier_e6, part_e4):
            publish.pace(money, slot, control.multiplier_e6, part_e4)

    # -- what a budget's books and counts say ------------------------------------------------------

    def _observed(self, budget: Budget, aim: Aim, state: State, now_s: int) -> Observed:
        counts = self._counts
        spent, pending, wins = _spent(budget, aim.day, self._keys, state)
        if len(budget.members) == 1:
            place = budget.members[0]
            bids, requests = int(counts.bids[place]), int(counts.requests[place])
            reserved = int(counts.reserved[place])
        else:
            places = list(budget.members)
            bids, requests = int(counts.bids[places].sum()), int(counts.requests[places].sum())
            reserved = int(counts.reserved[places].sum())
        reserved = bids if budget.name.units else reserved
        key = budget.name, aim.day
        own = self.own[key] = Observed(now_s, spent, pending, reserved, bids, wins, requests)
        others = self._elsewhere.get(key)
        return own if others is None else together(own, others)

    # -- the traffic -------------------------------------------------------------------------------

    def _learn(self, now_s: int) -> None:
        """Adds the requests of the last minute to the hour of each zone."""
        answered = self._counts.answered()
        if self._learned is None:
            self._learned = now_s, answered
            return
        seconds = now_s - self._learned[0]
        if 0 <= seconds < self._settings.learn_s:
            return
        if 0 < seconds <= 2 * self._settings.learn_s:
            for zone, known in self._curves.items():
                slot = curve.slots(now_s, now_s + 1, ZoneInfo(zone))[0]
                came = answered - self._learned[1]
                self._curves[zone] = curve.observe(known, slot, came, seconds)
        self._learned = now_s, answered
        self._weigh()

    def _weigh(self) -> None:
        """What goals are made with from now on."""
        self._weights = {zone: curve.weights(known) for zone, known in self._curves.items()}

    # -- telling people ----------------------------------------------------------------------------

    def _report(self, state: State, now_s: int) -> Iterator[None]:
        """Writes both files, in parts."""
        self.fault = ""
        rows: list[bytes] = []
        for first in range(0, len(self._plans), _ROWS_A_TURN):
            places = range(first, min(first + _ROWS_A_TURN, len(self._plans)))
            rows.append(msgspec.json.encode([self._row(place, state) for place in places]))
            yield
        self._write(self._report_path, pace_memory.joined(rows))
        yield
        yield from self._remember(now_s)

    def save(self, now_s: int) -> None:
        """Writes what a restart goes on from; to be called at the end, too."""
        for _ in self._remember(now_s):
            pass

    def _remember(self, now_s: int) -> Iterator[None]:
        if not self._plans:
            return  # nothing was served: what there is stays
        kept: list[bytes] = []
        for first in range(0, len(self._pacers), _ROWS_A_TURN):
            some = self._pacers[first : first + _ROWS_A_TURN]
            known = ((one, controller.remembered(one.state)) for one in some)
            kept.append(
                msgspec.json.encode(
                    [
                        kept_of(one.budget.name, multiplier_e6, one.state.recent)
                        for one, multiplier_e6 in known
                        if multiplier_e6 is not None
                    ]
                )
            )
            yield
        self._write(self._memory_path, pace_memory.file_of(now_s, kept, self._curves))

    def _write(self, path: Path, content: bytes) -> None:
        """Advice and figures for people: a disk that is full does not stop the keeper."""
        try:
            pace_memory.replace(path, content)
        except StoreError as error:
            self.fault = str(error)

    def _row(self, place: int, state: State) -> Row:
        key, plan = self._plans[place]
        item = f"{key:016x}"
        if not self._of_item[place]:
            name = Name(Scope.LINE_ITEM, key, False)
            whole = Budget(name, 0, plan.zone, plan.shape, (), (place,), 0)
            spent, pending, _ = _spent(whole, 0, self._keys, state)
            return Row(item, plan.name, "unpaced", "", False, spent, pending, 0, 0, 0,
                       MULTIPLIER_E6_ONE, PARTICIPATION_E4_ALL)  # fmt: skip
        pacer, control = self._deciding(place), self._joined(place)
        scope, _, units = pacer.budget.name
        return Row(
            item, plan.name, pacer.control.mode.name.lower(), scope.name.lower(), units,
            pacer.seen.spent_nanos, pacer.seen.pending_nanos, pacer.target(), pacer.budget.amount,
            pacer.error_e6, control.multiplier_e6, control.participation_e6 // 100,
        )  # fmt: skip

    def _deciding(self, place: int) -> _Pacer:
        """The budget that holds a line item back most."""
        controls = ((one.control.participation_e6, one.control.multiplier_e6, number)
                    for number, one in enumerate(self._of_item[place]))  # fmt: skip
        return self._of_item[place][min(controls)[2]]

    def errors(self) -> dict[int, int]:
        """Of each paced line item (spent - target) / budget, in millionths, by key."""
        return {
            key: self._deciding(place).error_e6
            for place, (key, _) in enumerate(self._plans)
            if self._of_item[place]
        }

    def summary(self) -> Summary:
        """How pacing goes on this node."""
        errors = [abs(pacer.error_e6) for pacer in self._pacers]
        return Summary(
            modes=dict(Counter(pacer.control.mode for pacer in self._pacers)),
            worst_e6=max(errors, default=0),
            mean_e6=sum(errors) // max(len(errors), 1),
        )


def _spent(budget: Budget, day: int, keys: Sequence[int], state: State) -> tuple[int, int, int]:
    """(posted, pending, impressions) of a budget on a day; day 0 is all days."""
    name = budget.name
    posted = pending = wins = lent = lent_units = 0
    for place in budget.members:
        line = state.lines.get(keys[place])
        for number in line.numbers[-RECENT_ACCOUNTS:] if line else ():
            account = state.accounts[number]
            if (day and account.day != day) or (
                name.scope is Scope.FLIGHT and account.flight != name.key
            ):
                continue
            own = account.units if name.units else account.nanos
            posted += own[Balance.POSTED]
            pending += own[Balance.PENDING]
            lent += own[Balance.GRANTED]
            wins += account.units[Balance.POSTED]
            lent_units += account.units[Balance.GRANTED] + account.units[Balance.PENDING]
    drawn = state.drawn.get((name.scope, name.key, 0))
    if not day and drawn is not None:  # older accounts, too: nothing is lent of them
        posted = (drawn.units if name.units else drawn.nanos) - lent - pending
        wins = drawn.units - lent_units
    return posted, pending, wins
