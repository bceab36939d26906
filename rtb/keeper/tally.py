"""What became of notices: which are new, which came before, which came too late to tell. Pure.

A worker cannot know what another one has seen; the keeper reads all journals. Of the kind that
settles on an exchange the books say what became of a notice. Of the others nothing is kept on any
disk, so they are remembered here for ten minutes from their bid on: a bit for each bid and kind. A
keeper that starts again has forgotten them. That is good enough for metrics, and moves no money.

What workers found wrong with a notice they have counted themselves: it is not counted again.
"""

from collections.abc import Collection, Iterable, Sequence
from heapq import heappop, heappush
from itertools import repeat
from struct import Struct
from typing import Final

import numpy as np
import numpy.typing as npt

from rtb.base.events import (
    BID_SECOND_SHIFT,
    CLAIMS_VERSION,
    CONVERSION,
    NOTICE,
    ClaimFlag,
    Kind,
    PriceState,
    VideoEvent,
)
from rtb.keeper.apply import REFUSED
from rtb.keeper.batch import Batch
from rtb.keeper.letters import Letter, Reason
from rtb.ledger.commands import Outcome, Post, Void
from rtb.stores.board import KINDS_MAX, OUTCOMES_MAX, RESULTS_MAX, NoticeResult
from rtb.stores.journal import Record
from rtb.stores.ledger_sql import Applied

# Most notices come within seconds; by then the money of a bid is free again, too.
REMEMBER_S: Final = 600
# Pages are kept longer than notices are judged by them: journals are read one after the other.
SLACK_S: Final = 60
# Bids of one worker and second that share a page: 512 bytes, also where there is but one of them.
PAGE_SHIFT: Final = 8
# 16 MB with their index: forty pages a second, of ten thousand bids, for as long as they are kept.
# With more bids than that older seconds go sooner.
PAGES_MAX: Final = 26_400
# 2 MB. Shops repeat themselves within minutes, and conversions are rare.
CONVERSIONS_MAX: Final = 8_192

Ints = npt.NDArray[np.int64]
Verdicts = npt.NDArray[np.uint8]
NEW, AGAIN, LATE = (int(NoticeResult.OK), int(NoticeResult.DUPLICATE), int(NoticeResult.LATE))

_BIT_OF: Final = np.zeros(KINDS_MAX, np.int64)
_BIT_OF[[Kind.WIN, Kind.BILL, Kind.LOSS, Kind.IMPRESSION, Kind.CLICK, Kind.VIEW]] = range(6)
_BIT_OF[Kind.VIDEO] = 6  # and those after it, one to a VideoEvent
_VIDEO_MAX: Final = int(max(VideoEvent))
_BITS_SHIFT: Final = 4  # so many events at most fit in 16 bits
assert _BIT_OF[Kind.VIDEO] + _VIDEO_MAX < 1 << _BITS_SHIFT
_MARKED: Final = frozenset(range(int(Kind.WIN), int(Kind.VIDEO) + 1))
_CONVERSIONS: Final = frozenset((int(Kind.CONVERSION), int(Kind.ORDER)))
_NOTICES: Final = _MARKED | _CONVERSIONS
_TEST: Final = int(ClaimFlag.TEST)
_WIN, _VIDEO, _AUDIT = int(Kind.WIN), int(Kind.VIDEO), int(PriceState.AUDIT)
_GOOD: Final = int(PriceState.OK)  # of NONE and OK nothing was said before
_CONVERSION: Final = Struct("<xxB5xQ72xQ4xB3x")  # flags, bid, order, value_state
assert _CONVERSION.size == CONVERSION.itemsize
assert CONVERSION.fields is not None
assert [CONVERSION.fields[name][1] for name in ("order", "value_state")] == [88, 100]
assert NOTICE.fields is not None
_NOTICE_BYTES: Final = NOTICE.itemsize
_STATE_AT: Final = NOTICE.fields["price_state"][1]

_BY_OUTCOME: Final = {
    Outcome.POSTED: NoticeResult.OK,
    Outcome.POSTED_UNSEEN: NoticeResult.OK,
    Outcome.POSTED_OVER: NoticeResult.OK,
    Outcome.LATE: NoticeResult.LATE,
    Outcome.LATE_OVER: NoticeResult.LATE,
    Outcome.TOO_OLD: NoticeResult.LATE,
    Outcome.DUPLICATE: NoticeResult.DUPLICATE,
    Outcome.DUPLICATE_OTHER_PRICE: NoticeResult.DUPLICATE,
}
# The same by number: a list is asked much faster than an enum is hashed. MARK: the marks tell.
MARK: Final = -1
_OF_BILL: Final = [int(NoticeResult.UNBOOKED)] * OUTCOMES_MAX
for _outcome, _result in _BY_OUTCOME.items():
    _OF_BILL[_outcome] = int(_result)
_OF_LOSS: Final = [
    _OF_BILL[number] if number in set(REFUSED) else MARK for number in range(OUTCOMES_MAX)
]
# Workers have said so of the same notice.
_SAID: Final = (Reason.PRICE_IN_DOUBT, Reason.UNKNOWN_EXCHANGE)


class Seen:
    """Which events of which bids were seen: 16 bits a bid, in pages of one worker and second."""

    def __init__(self, pages_max: int = PAGES_MAX) -> None:
        self._marks = np.zeros(pages_max << PAGE_SHIFT, np.uint16)
        self._pages_max = pages_max
        self._used = 0
        self._free: list[int] = []
        self._slots: dict[int, int] = {}  # by page
        self._of_second: dict[int, list[int]] = {}
        self._seconds: list[int] = []  # a heap
        self._floor_s = 0  # nothing is known of bids before

    def look(self, bids: Ints, bits: Ints, arrived_s: Ints) -> Verdicts:
        """NEW, AGAIN or LATE for each event, in their order; new ones are marked.

        Shapes: all (n,). bits: 0 to 15, which event of the bid
        """
        found = np.full(len(bids), LATE, np.uint8)
        if not len(bids):
            return found
        in_time = np.flatnonzero(arrived_s - (bids >> BID_SECOND_SHIFT) <= REMEMBER_S)
        slots = self._slots_of(bids[in_time] >> PAGE_SHIFT)
        in_time, slots = in_time[slots >= 0], slots[slots >= 0]
        at = slots << PAGE_SHIFT | bids[in_time] & (1 << PAGE_SHIFT) - 1
        bits = bits[in_time]
        new = np.flatnonzero(self._marks[at] >> bits & 1 == 0)
        new = new[_firsts(at[new] << _BITS_SHIFT | bits[new])]
        np.bitwise_or.at(self._marks, at[new], (1 << bits[new]).astype(np.uint16))
        found[in_time] = AGAIN
        found[in_time[new]] = NEW
        self._forget(int(arrived_s.max()) - REMEMBER_S - SLACK_S)
        return found

    def _slots_of(self, pages: Ints) -> Ints:
        """Where pages lie; -1 for one that there is no room for."""
        ordered = np.sort(pages)
        unique = ordered[_begins(ordered)]
        wanted, none = unique.tolist(), repeat(-1)
        slots = list(map(self._slots.get, wanted, none))
        if -1 in slots:
            # The newest come first: an older one takes no place from them.
            for page in reversed(wanted):
                if page not in self._slots:
                    self._begin(page)
            slots = list(map(self._slots.get, wanted, none))
        return np.array(slots, np.int64)[np.searchsorted(unique, pages)]

    def _begin(self, page: int) -> None:
        """Gives a page a place, if there is one."""
        second = page >> BID_SECOND_SHIFT - PAGE_SHIFT
        if not self._has_room(second):
            return
        if second not in self._of_second:
            self._of_second[second] = []
            heappush(self._seconds, second)
        self._of_second[second].append(page)
        if self._free:
            slot = self._free.pop()
        else:
            slot, self._used = self._used, self._used + 1
        self._slots[page] = slot

    def _has_room(self, second: int) -> bool:
        if second < self._floor_s:
            return False
        if self._free or self._used < self._pages_max:
            return True
        if second <= self._seconds[0]:
            return False
        self._forget_oldest()
        return True

    def _forget(self, before_s: int) -> None:
        while self._seconds and self._seconds[0] < before_s:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        second = heappop(self._seconds)
        self._floor_s = second + 1
        for page in self._of_second.pop(second):
            slot = self._slots.pop(page)
            self._marks[slot << PAGE_SHIFT : slot + 1 << PAGE_SHIFT] = 0
            self._free.append(slot)


def _begins(ordered: Ints) -> npt.NDArray[np.bool_]:
    """Which of some sorted numbers are not the one before."""
    found = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=found[1:])
    return found


def _firsts(keys: Ints) -> Ints:
    """Where each key stands first; most batches hold none twice, and sorting them shows it."""
    if _begins(np.sort(keys)).all():
        return np.arange(len(keys))
    return np.unique(keys, return_index=True)[1]


class Recent:
    """The newest pairs of a click and an order (0: none); the oldest goes when there are too many.

    They come for a month, each for itself, so none is ever too late.
    """

    def __init__(self, pairs_max: int = CONVERSIONS_MAX) -> None:
        self._pairs: dict[tuple[int, int], None] = {}
        self._pairs_max = pairs_max

    def look(self, bid: int, order: int) -> int:
        """NEW or AGAIN."""
        if (bid, order) in self._pairs:
            return AGAIN
        if len(self._pairs) >= self._pairs_max:
            del self._pairs[next(iter(self._pairs))]
        self._pairs[bid, order] = None
        return NEW


def _marked(records: Sequence[Record]) -> list[Record]:
    """Those of some records that are notices of which the bitmaps keep a bit."""
    return [one for one in records if one[1] in _MARKED and len(one[2]) == _NOTICE_BYTES]


class Tally:
    """Counts of one keeper, from its start on.

    exchanges  keys that the settings know
    counts     (kinds, results) by `Kind` and `NoticeResult`
    wins       bids that were won, whatever their price was worth, each once
    """

    def __init__(self, exchanges: Collection[int]) -> None:
        self.counts = np.zeros((KINDS_MAX, RESULTS_MAX), np.int64)
        self.wins = 0
        self._exchanges = np.array(list(exchanges), np.uint32)
        self._seen, self._recent = Seen(), Recent()

    def add(self, batch: Batch, applied: Applied) -> None:
        """A batch, once it is committed."""
        fresh = _marked(batch.idle)
        if len(fresh) < len(batch.idle):
            self._conversions([one for one in batch.idle if one[1] in _CONVERSIONS])
        wins, losses = self._booked(batch, applied)
        fresh += losses
        judged = _marked(wins + self._dead(batch.dead))
        if fresh or judged:
            self._remember(fresh + judged, len(fresh))

    def _booked(self, batch: Batch, applied: Applied) -> tuple[list[Record], list[Record]]:
        """Counts what the books said: all that there is to say of bills, and the losses that they
        refused. Returns: wins among those bills, and the other losses.
        """
        first = bool(batch.taken)
        kinds, results, wins, losses = [], [], [], []
        answers = zip(batch.places, batch.commands[first:], applied.outcomes[first:], strict=False)
        for (_, record), command, outcome in answers:
            _, kind, body = record
            if isinstance(command, Post):
                result = _OF_BILL[outcome]
                if kind == _WIN:
                    wins.append(record)
            elif isinstance(command, Void):
                result = _OF_LOSS[outcome]
                if result == MARK:
                    losses.append(record)
            else:
                continue
            if result != MARK and body[_STATE_AT] <= _GOOD:
                kinds.append(kind)
                results.append(result)
        if kinds:
            np.add.at(self.counts, (kinds, results), 1)
        return wins, losses

    def _dead(self, letters: Iterable[Letter]) -> list[Record]:
        """Counts dead letters. Returns: the wins among them, whose price is in doubt."""
        wins = []
        for letter in letters:
            if letter.kind not in _NOTICES:
                continue
            if letter.reason not in _SAID:
                late = letter.reason == Reason.TOO_OLD
                self.counts[letter.kind, LATE if late else NoticeResult.UNBOOKED] += 1
            if letter.kind == _WIN:
                wins.append((letter.sequence, letter.kind, letter.body))
        return wins

    def _remember(self, records: list[Record], fresh: int) -> None:
        """Marks notices, and counts the first `fresh` of them; the books have judged the others."""
        _, kinds_of, bodies = zip(*records, strict=True)
        notices, kinds = np.frombuffer(b"".join(bodies), NOTICE), np.array(kinds_of, np.int64)
        good = self._counts(notices)
        fresh = int(np.count_nonzero(good[:fresh]))
        if not good.all():
            notices, kinds = notices[good], kinds[good]
        bits = _BIT_OF[kinds]
        videos = np.flatnonzero(kinds == _VIDEO)
        bits[videos] += np.minimum(notices["detail"][videos], _VIDEO_MAX)
        # Bids were signed by us: they fit in 63 bits.
        bids = notices["claims"]["bid"].astype(np.int64)
        found = self._seen.look(bids, bits, notices["time_ms"] // 1000)
        self.wins += int(np.count_nonzero(found[kinds == _WIN] == NEW))
        ours = np.flatnonzero(notices["price_state"][:fresh] <= _GOOD)
        cells = kinds[ours] * RESULTS_MAX + found[ours]
        self.counts += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)

    def _counts(self, notices: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Which notices count for anything: of no test or audit, and of an exchange we know."""
        said = notices["claims"]
        found: npt.NDArray[np.bool_] = np.isin(said["exchange"], self._exchanges)
        found &= (said["version"] == CLAIMS_VERSION) & (said["flags"] & _TEST == 0)
        found &= notices["price_state"] != _AUDIT
        return found

    def _conversions(self, records: Iterable[Record]) -> None:
        for _, kind, body in records:
            if len(body) != _CONVERSION.size:
                continue
            flags, bid, order, state = _CONVERSION.unpack(body)
            if flags & _TEST:
                continue
            found = self._recent.look(bid, order)
            if state != PriceState.GARBAGE:
                self.counts[kind, found] += 1
