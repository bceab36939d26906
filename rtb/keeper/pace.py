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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from rtb.base.errors import StoreError
from rtb.base.records import MULTIPLIER_E6_ONE, PARTICIPATION_E4_ALL
from rtb.keeper import pace_memory, pace_report, publish
from rtb.keeper.chart import Plan
from rtb.keeper.pace_budgets import Aim, Aimed, Budget, Name, aim_of
from rtb.keeper.pace_counts import Counts
from rtb.keeper.pace_memory import kept_of
from rtb.keeper.pace_pacer import Key, Pacer, control_of, spent_of
from rtb.keeper.pace_report import ROWS_A_TURN, Summary
from rtb.ledger.accounts import State
from rtb.pacing import controller, curve
from rtb.pacing.estimate import NOTHING, Observed, Recent, together
from rtb.pacing.goal import DEFAULT, Control, Law, Mode, Tuning
from rtb.pacing.schedule import ONE_E6, Shape
from rtb.stores.board import FUNNEL_SAMPLE, Board
from rtb.stores.board_money import NO_SLOT, MoneyBoard

# What a controller's step and an hour of a schedule cost, in looks at a budget: measured.
_STEP_WORK: Final = 12
_HOURS_A_WORK: Final = 4
_TUNING: Final = replace(DEFAULT, sample=FUNNEL_SAMPLE)
_CONTROL_ALL: Final = Control(MULTIPLIER_E6_ONE, ONE_E6, Mode.FINISH)


def tuning_of(law: str) -> Tuning:
    """The numbers of a law by its name in settings, "dual" or "pid"."""
    return replace(_TUNING, law=Law[law.upper()])


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
        self._pacers: list[Pacer] = []
        self._of_item: list[list[Pacer]] = []
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

    @property
    def weights(self) -> Mapping[str, Sequence[int]]:
        """What is known of the traffic of each zone (`pace_budgets.aim_of`)."""
        return self._weights

    def serve(
        self,
        aimed: Aimed,
        state: State,
        slots: Mapping[int, int],
        now_ms: int,
    ) -> None:
        """Paces the line items of a snapshot; to be called after their budgets were charted.

        slots: where they stand on the money board. Controllers of budgets that stay go on.
        """
        self._plans = aimed.plans
        rows = [plan.row for _, plan in self._plans]
        self._keys = [key for key, _ in self._plans]
        self._counts.serve(self._keys, rows, slots, aimed.creatives)
        for _, plan in self._plans:
            self._curves.setdefault(plan.zone, curve.Curve())
        self._weigh()
        before = {pacer.budget.name: pacer for pacer in self._pacers}
        kept = self._kept.multipliers(now_ms // 1000)
        self._pacers, self._of_item = [], [[] for _ in self._plans]
        for budget, aim in aimed.budgets:
            pacer = self._begin(budget, aim, before.get(budget.name), kept, state, now_ms // 1000)
            self._pacers.append(pacer)
            for place in budget.members:
                if self._plans[place][1].shape is not Shape.ASAP:
                    self._of_item[place].append(pacer)
        self._round = self._telling = None
        for place, pacers in enumerate(self._of_item):
            if not pacers:
                self._tell(place, _CONTROL_ALL)
            elif self._is_new(place):
                self._tell(place, control_of(pacers))

    def _begin(
        self,
        budget: Budget,
        aim: Aim,
        before: Pacer | None,
        kept: Mapping[Name, tuple[int, Recent]],
        state: State,
        now_s: int,
    ) -> Pacer:
        """A budget's controller: the one it had, one that remembers, or one that probes."""
        keys = tuple(self._keys[place] for place in budget.members)
        seen = self._observed(budget, aim, state, now_s)
        if before is None:
            tuning = self._settings.tuning
            multiplier_e6, recent = kept.get(budget.name) or (self._standing(budget), NOTHING)
            own = controller.begin(seen, aim.goal, tuning, multiplier_e6, recent)
            return Pacer(budget, keys, aim, own, seen, own.control)
        if before.keys != keys:  # its sums are of others now
            own = replace(before.state, seen=seen, mark=seen, open_requests=0.0)
            return Pacer(budget, keys, aim, own, seen, before.control)
        return Pacer(budget, keys, aim, before.state, before.seen, before.control)

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
        needs = control_of(self._of_item[place]).multiplier_e6 < MULTIPLIER_E6_ONE
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

    def _look(self, pacer: Pacer, state: State, tuning: Tuning, now_s: int) -> int:
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
        pacers = self._of_item[place]
        control = control_of(pacers)
        self._tell(place, control)
        for pacer in pacers if len(pacers) > 1 else ():
            if len(pacer.keys) == 1 and pacer.state.control != control:
                pacer.state = replace(pacer.state, control=control)

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
        spent, pending, wins = spent_of(budget, aim.day, self._keys, state)
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
        for part in pace_report.parts(self._plans, self._of_item, state):
            rows.append(part)
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
        for first in range(0, len(self._pacers), ROWS_A_TURN):
            some = self._pacers[first : first + ROWS_A_TURN]
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

    def errors(self) -> dict[int, int]:
        """Of each paced line item (spent - target) / budget, in millionths, by key."""
        return pace_report.errors(self._plans, self._of_item)

    def summary(self) -> Summary:
        """How pacing goes on this node."""
        return pace_report.summary(self._pacers)
