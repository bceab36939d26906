"""The decision: one opportunity, one person, one snapshot, one model -> bids and reasons.

This is the readable twin of `ext/engine.pyx` and the place where its rules are written down. Both
are pure: time and chance are arguments (the seed is the hash of the request's id), nothing is
read or written but the arguments. The order of the steps is the order of `Reject`:

    request   currency, block lists, tokens (person and clock included)
    imp       index -> expression, flight, deals, seat, person -> creatives -> score -> price
    request   choice across impressions: separation, pods
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from rtb.base.hashing import mix64
from rtb.base.money import CPM_MICROS_MAX
from rtb.base.reasons import NoBid, Reject
from rtb.base.records import (
    BIDS_MAX,
    DROPS_MAX,
    OVERLAY,
    PARTICIPATION_E4_ALL,
    Decision,
    Dim,
    Flag,
    ImpFlag,
    Media,
    Opportunity,
    Overlay,
    Terms,
    as_values,
)
from rtb.catalogue import snapshot as snap
from rtb.decide import exclude, features, price, select, targeting
from rtb.decide.select import Candidate, Choice, Group
from rtb.decide.targeting import Index

# Creatives that one impression may score: bounds the scratch space, never met in practice.
READY_MAX: Final = 16_384
# Blocks are searched until there are so many candidates; then those are looked at.
BATCH_MIN: Final = 32
# The candidates of a batch are looked at in turns, as many as a short list holds and the most
# valuable first; what still has a chance after so many turns is looked at in one more.
ROUNDS_RANKED: Final = 2
# Currencies that the bounds of blocks are kept in; a catalogue with more has no such bounds.
CURRENCIES_BOUND_MAX: Final = 8
BLOCK_LINE_ITEMS: Final = 64 * snap.BLOCK_WORDS
# Tells the draw of the throttle from the draw among equals.
PACING_SEED: Final = 0x7F4A7C15F39CC060
HELD_BACK: Final = {
    Overlay.PAUSED: Reject.PAUSED,
    Overlay.EXHAUSTED: Reject.EXHAUSTED,
    Overlay.OUT_OF_STOCK: Reject.OUT_OF_STOCK,
}
OPEN_PLACE: Final = -1  # the open market among the competitions of an impression


class Scorer(Protocol):
    """A model bound to a snapshot: probabilities for creatives on one impression."""

    @property
    def heads(self) -> frozenset[str]:
        """What it predicts: "ctr", "cvr"; line items fall back to their priors for the rest."""
        ...

    def score(
        self, features: np.ndarray, creatives: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Shapes: features (n,) uint64; creatives (m,) int32 -> ctr (m,), cvr (m,) float64.

        None where the model has no such head: line items fall back to their priors.
        """
        ...


@dataclass
class Trace:
    """What explain wants beyond the decision: every line item's first failing rule per imp."""

    drops: dict[int, dict[int, int]] = field(default_factory=dict)  # imp -> line item -> dim


class Engine:
    """The readable engine over one snapshot and, perhaps, one model."""

    def __init__(self, snapshot: snap.Snapshot, scorer: Scorer | None = None) -> None:
        self.index = Index(snapshot)
        self.scorer = scorer
        self.line_items = [as_values(row) for row in snapshot["line_items"]]
        self.creatives = [as_values(row) for row in snapshot["creatives"]]
        self.bounds = [self._bound_micros(row) for row in self.line_items]
        self.separates = any(row.separation >= 0 for row in self.line_items)
        self.blocks_count = -(-len(self.line_items) // BLOCK_LINE_ITEMS)
        self.block_bounds = self._block_bounds()

    def decide(
        self,
        opportunity: Opportunity,
        profile: bytes | None,
        terms: Terms,
        overlay: npt.NDArray[np.void] | bytes | None,
        now_ms: int,
        decision: Decision,
        trace: Trace | None = None,
    ) -> None:
        """Fills `decision`.

        Units: now_ms epoch milliseconds.
        Shapes: overlay rows of dtype OVERLAY, one a line item; those without one run freely.
        """
        _Run(self, opportunity, profile, terms, overlay, now_ms, decision, trace).run()

    def fall_back(
        self,
        opportunity: Opportunity,
        decision: Decision,
        refused: int,
        reason: int = Reject.BUDGET,
    ) -> None:
        """Gives the place of a chosen bid that was refused to the next of its short list.

        decision: as this engine filled it, for that opportunity; reason: a `Reject`. Who comes next
        is chosen, if he may stand beside all others that are.
        """
        out = decision.data[0]
        bids = out["bids"]
        head, bid = out["head"], bids[refused]
        bid["chosen"] = 0
        if head["drops_count"] < DROPS_MAX:
            out["drops"][head["drops_count"]] = (
                bid["line_item"], bid["creative"], bid["imp"], reason,
            )  # fmt: skip
            head["drops_count"] += 1
        facts = opportunity.facts[0]
        imps = [as_values(row) for row in facts["imps"][: facts["head"]["imps_count"]]]
        # Rows have what the choice looks at under the same names.
        rows: list[Any] = [as_values(row) for row in bids[: head["bids_count"]]]
        chosen = [row for row in rows if row.chosen]
        choice = Choice(self.index.snapshot, self.line_items, self.creatives, imps, chosen)
        for number in range(refused + 1, len(rows)):
            if rows[number].group != bid["group"]:
                break
            if not rows[number].chosen and not choice.reject(rows[number]):
                bids[number]["chosen"] = 1
                break

    def _bound_micros(self, row: SimpleNamespace) -> float:
        """The most that 1,000 impressions can be worth to a line item, in its currency."""
        heads = self.scorer.heads if self.scorer is not None else ()
        ctr = 1.0 if "ctr" in heads else row.prior_ctr
        cvr = 1.0 if "cvr" in heads else row.prior_cvr
        return price.value_micros(row, ctr, cvr)

    def _block_bounds(self) -> list[dict[int, float]] | None:
        """The highest bound of each block, by currency; None with too many currencies."""
        if len({row.currency for row in self.line_items}) > CURRENCIES_BOUND_MAX:
            return None
        found: list[dict[int, float]] = [{} for _ in range(self.blocks_count)]
        for line_item, row in enumerate(self.line_items):
            most = found[line_item // BLOCK_LINE_ITEMS]
            if self.bounds[line_item] > most.get(row.currency, 0.0):
                most[row.currency] = self.bounds[line_item]
        return found


class _Run:
    """One decision in progress."""

    def __init__(
        self,
        engine: Engine,
        opportunity: Opportunity,
        profile: bytes | None,
        terms: Terms,
        overlay: npt.NDArray[np.void] | bytes | None,
        now_ms: int,
        decision: Decision,
        trace: Trace | None,
    ) -> None:
        self.engine, self.index = engine, engine.index
        self.facts = opportunity.facts[0]
        self.head = as_values(self.facts["head"])
        self.terms = as_values(terms.data[0])
        self.tokens = self.facts["tokens"][: self.head.tokens_count]
        self.deals = [as_values(row) for row in self.facts["deals"][: self.head.deals_count]]
        self.durfloors = [
            as_values(row) for row in self.facts["durfloors"][: self.head.durfloors_count]
        ]
        self.imps = [as_values(row) for row in self.facts["imps"][: self.head.imps_count]]
        self.now_ms = now_ms
        self.overlay = np.frombuffer(b"" if overlay is None else overlay, OVERLAY)
        self.person = exclude.Person(None if self.head.privacy else profile)
        # Who said no to us, or may have, said it of what others tell of him, too.
        refused = self.person.opted_out or self.person.uncounted
        self.head.privacy = self.head.privacy or refused
        self.out = decision.data[0]
        self.trace = trace
        self.drops = 0
        self.groups: list[Group] = []

    def run(self) -> None:
        self.out["head"] = np.zeros(1, self.out["head"].dtype)[0]
        self.out["head"]["generation"] = self.terms.generation
        self.out["head"]["contextual"] = not self.person.known
        self.out["head"]["opted_out"] = self.person.opted_out
        nobid = self._request()
        self.out["head"]["nobid"] = nobid
        self.out["head"]["drops_count"] = self.drops

    def _request(self) -> NoBid:
        if self.head.flags & Flag.BLOCKS_OVERFLOW:
            return NoBid.TOO_LARGE
        if self.head.flags & Flag.UNUSABLE or not self.imps:
            return NoBid.NO_IMPRESSION
        self.rates = price.Rates(self.terms)
        self.currency = price.response_currency(self.head, self.terms, self.rates)
        self.out["head"]["cur"] = self.currency
        if not self.currency:
            return NoBid.UNSUPPORTED_CURRENCY
        self.blocks = exclude.Blocks(self.index, self.tokens, self.head.blocks)
        self.request_tokens = targeting.tokens_of(
            self.head, self.tokens, self.terms, self.person.segments, self.now_ms
        )
        self.hour = self.request_tokens[Dim.HOUR_OF_WEEK][0]
        usable = [
            (number, imp) for number, imp in enumerate(self.imps)
            if imp.media and not imp.flags & ImpFlag.UNUSABLE
        ]  # fmt: skip
        competitions = sum(imp.deals_count + 1 for _, imp in usable)
        self.imps_count = len(usable)
        self.room = select.shortlist_room(len(usable), competitions, self.engine.separates)
        for number, imp in usable:
            self._impression(number, imp)
        if not usable:
            return NoBid.NO_IMPRESSION
        if self._choose():
            return NoBid.BID
        blocked = exclude.is_blocked(self.index, self.terms, self.blocks)
        return NoBid.SEAT_BLOCKED if blocked else NoBid.NO_CANDIDATE

    def _drop(self, line_item: int, creative: int, imp: int, reason: Reject) -> None:
        if self.drops < DROPS_MAX:
            self.out["drops"][self.drops] = (line_item, creative, imp, reason)
            self.drops += 1

    # -- one impression ---------------------------------------------------------------------------

    def _impression(self, number: int, imp: SimpleNamespace) -> None:
        of_imp = targeting.imp_tokens_of(self.tokens, number)
        passing = targeting.eligible(self.index, self.request_tokens, of_imp)
        if self.trace is not None:
            self._trace(number, of_imp)
        groups: dict[int, Group] = {}
        self.looked_at = 0
        found: list[int] = []
        for value, block in self._blocks():
            if self._is_settled(imp, value, groups):
                break
            first = block * BLOCK_LINE_ITEMS
            here = passing >> first & (1 << BLOCK_LINE_ITEMS) - 1
            found += self._find(number, [first + member for member in targeting.members(here)])
            if len(found) >= BATCH_MIN:
                self._batch(number, imp, of_imp, found, groups)
                found = []
        self._batch(number, imp, of_imp, found, groups)
        offered = range(imp.deals_start, imp.deals_start + imp.deals_count)
        self.groups += [groups[deal] for deal in (*offered, OPEN_PLACE) if deal in groups]

    def _blocks(self) -> list[tuple[float, int]]:
        """(the most that anybody in it can be worth in the answer's currency, block), best first.

        The compiled twin leaves out blocks in which the index cannot have left anybody.
        """
        bounds = self.engine.block_bounds
        if bounds is None:
            return [(CPM_MICROS_MAX, block) for block in range(self.engine.blocks_count)]

        def value(most: dict[int, float]) -> float:
            ratios = {currency: self.rates.ratio(currency, self.currency) for currency in most}
            # Without a rate they are looked at, and told so.
            return max(
                (
                    CPM_MICROS_MAX if ratio is None else most[currency] * ratio
                    for currency, ratio in ratios.items()
                ),
                default=0.0,
            )

        pairs = [(value(most), block) for block, most in enumerate(bounds)]
        return sorted(pairs, key=lambda pair: (-pair[0], pair[1]))

    def _last_place(self, imp: SimpleNamespace, groups: dict[int, Group]) -> int | None:
        """The value to beat for a place on the open market; None while there is room."""
        group = groups.get(OPEN_PLACE)
        if self.terms.exhaustive or group is None:
            return None
        full = len(group.entries) == select.shortlist_max(imp, self.room)
        return group.entries[-1].value_micros if full else None

    def _crowd(self, imp: SimpleNamespace, groups: dict[int, Group]) -> tuple[int, int]:
        """A separation group that has all its places on the open market, and the value to beat for
        one; -1 where there is none.
        """
        group = groups.get(OPEN_PLACE)
        if self.terms.exhaustive or group is None:
            return -1, 0
        rivals = select.rivals_max(imp, self.room, self.imps_count)
        if rivals >= select.shortlist_max(imp, self.room):
            return -1, 0
        return select.crowd(group, rivals)

    def _is_settled(self, imp: SimpleNamespace, value: float, groups: dict[int, Group]) -> bool:
        """Whether nobody of a block worth `value`, nor of those after it, can get a place.

        Deals have lists of their own, and anybody may be on them.
        """
        last = self._last_place(imp, groups)
        return last is not None and not imp.deals_count and round(value) < last

    def _find(self, number: int, line_items: list[int]) -> list[int]:
        """Who of a block is looked at: all, up to the impression's limit."""
        self.out["head"]["eligible_count"] += len(line_items)
        room = self.terms.candidates_max - self.looked_at
        for line_item in line_items[room:]:
            self._drop(line_item, -1, number, Reject.TRUNCATED)
        self.looked_at += len(line_items[:room])
        return line_items[:room]

    def _batch(
        self,
        number: int,
        imp: SimpleNamespace,
        of_imp: targeting.Tokens,
        found: list[int],
        groups: dict[int, Group],
    ) -> None:
        """Looks at the candidates found so far, those first that can be worth the most."""
        step = select.shortlist_max(imp, self.room)
        ranked = [(self._bound(line_item), line_item) for line_item in found]
        for turn in range(ROUNDS_RANKED + 1):
            ranked = self._without_hopeless(number, imp, ranked, groups)
            if turn < ROUNDS_RANKED:
                best = sorted(ranked, key=lambda pair: (-pair[0], pair[1]))[:step]
            else:
                best = ranked
            self._look_at(number, imp, of_imp, [line_item for _, line_item in best], groups)
            ranked = [pair for pair in ranked if pair not in best]

    def _look_at(
        self,
        number: int,
        imp: SimpleNamespace,
        of_imp: targeting.Tokens,
        line_items: list[int],
        groups: dict[int, Group],
    ) -> None:
        """Checks line items, and prices what is left of them."""
        ready: list[tuple[int, int, list[int]]] = []
        for line_item in line_items:
            self._line_item(number, imp, of_imp, line_item, ready)
        if ready:
            self._price(number, imp, ready, groups)

    def _bound(self, line_item: int) -> float:
        """The most that a candidate can be worth, in the currency of the answer."""
        currency = self.engine.line_items[line_item].currency
        ratio = self.rates.ratio(currency, self.currency)
        # Without a rate it is looked at, and told so.
        return CPM_MICROS_MAX if ratio is None else self.engine.bounds[line_item] * ratio

    def _without_hopeless(
        self,
        number: int,
        imp: SimpleNamespace,
        ranked: list[tuple[float, int]],
        groups: dict[int, Group],
    ) -> list[tuple[float, int]]:
        """Drops whose highest value misses a full short list of the open market, or the places that
        it has for a separation group.

        Deals have lists of their own; where one may be ours, nothing is known before it is looked
        at.
        """
        last = self._last_place(imp, groups)
        crowd, crowd_last = self._crowd(imp, groups)
        if last is None and crowd < 0:
            return ranked
        left: list[tuple[float, int]] = []
        for value, line_item in ranked:
            on_deals = imp.deals_count and self.engine.line_items[line_item].deals_count
            is_crowded = 0 <= crowd == self.engine.line_items[line_item].separation
            needed = max(last or 0, crowd_last if is_crowded else 0)
            if round(value) >= needed or on_deals:
                left.append((value, line_item))
            else:
                self._drop(line_item, -1, number, Reject.BELOW_SHORTLIST)
        return left

    def _trace(self, number: int, of_imp: targeting.Tokens) -> None:
        assert self.trace is not None
        first: dict[int, int] = {}
        left = self.index.everyone
        for dim, allowed in targeting.dim_sets(self.index, self.request_tokens, of_imp):
            for line_item in targeting.members(left & ~allowed):
                first[line_item] = dim
            left &= allowed
        self.trace.drops[number] = first

    def _line_item(
        self,
        number: int,
        imp: SimpleNamespace,
        of_imp: targeting.Tokens,
        line_item: int,
        ready: list[tuple[int, int, list[int]]],
    ) -> None:
        """Checks one line item, then its creatives; appends (creative, line item, deals)."""
        row = self.engine.line_items[line_item]
        seat = exclude.seat_of(self.index, row.advertiser, self.terms)
        reason, deals = self._reject_line_item(number, imp, of_imp, line_item, row, seat)
        if reason:
            self._drop(line_item, -1, number, reason)
            return
        for creative in range(row.creatives_start, row.creatives_start + row.creatives_count):
            ad = self.engine.creatives[creative]
            reason = (
                exclude.reject_capped(self.index, ad, self.person, self.now_ms)
                or exclude.reject_creative(
                    self.index, ad, imp, self.facts, self.blocks, self.terms.exchange
                )
                or exclude.reject_history(self.index, row, ad, self.person, self.now_ms)
            )
            open_to = [] if reason else self._open_to(imp, row, seat, ad, deals)
            if not reason and not open_to:
                reason = self._last_deal_reason
            if reason:
                self._drop(line_item, creative, number, reason)
            elif len(ready) < READY_MAX:
                ready.append((creative, line_item, open_to))
            else:
                self._drop(line_item, creative, number, Reject.TRUNCATED)

    def _reject_line_item(
        self,
        number: int,
        imp: SimpleNamespace,
        of_imp: targeting.Tokens,
        line_item: int,
        row: SimpleNamespace,
        seat: SimpleNamespace,
    ) -> tuple[Reject, list[int]]:
        none: list[int] = []
        if not targeting.fits(self.index, row, self.head, imp, self.request_tokens, of_imp):
            return Reject.TARGETING_EXPRESSION, none
        held = self._held_back(line_item, row)
        if held:
            return held, none
        if not self._in_flight(row):
            return Reject.FLIGHT, none
        deals = self._offered(imp, row)
        if not deals:
            if not row.flags & snap.OPEN_MARKET:
                return Reject.DEAL_ONLY, none
            if imp.flags & ImpFlag.PRIVATE_AUCTION:
                return Reject.PRIVATE_AUCTION, none
        reason = exclude.reject_seat(seat, self.blocks) or exclude.reject_person(
            self.index, row, self.person, self.now_ms
        )
        return reason, deals

    def _held_back(self, line_item: int, row: SimpleNamespace) -> Reject:
        """What the node knows that the catalogue does not, and the throttle of pacing."""
        if line_item >= len(self.overlay):
            return Reject.NONE
        bits = Overlay(int(self.overlay[line_item]["bits"]))
        for bit, reason in HELD_BACK.items():
            if bit in bits:
                return reason
        draw = mix64(self.head.id_hash ^ row.key ^ PACING_SEED) % PARTICIPATION_E4_ALL
        if draw >= self.overlay[line_item]["participation_e4"]:
            return Reject.PACED
        return Reject.NONE

    def _in_flight(self, row: SimpleNamespace) -> bool:
        if not row.flights_count:
            return True
        start = row.flights_start
        flights = self.index.snapshot["flights"][start : start + row.flights_count]
        return any(f["start_ms"] <= self.now_ms < f["end_ms"] for f in flights)

    def _offered(self, imp: SimpleNamespace, row: SimpleNamespace) -> list[int]:
        """Numbers of the impression's deals that the line item is attached to."""
        start = row.deals_start
        ours = self.index.snapshot["line_item_deals"][start : start + row.deals_count].tolist()
        hashes = {int(self.index.snapshot["deals"][ordinal]) for ordinal in ours}
        offered = range(imp.deals_start, imp.deals_start + imp.deals_count)
        return [number for number in offered if self.deals[number].hash in hashes]

    def _open_to(
        self,
        imp: SimpleNamespace,
        row: SimpleNamespace,
        seat: SimpleNamespace,
        ad: SimpleNamespace,
        deals: list[int],
    ) -> list[int]:
        """The competitions that this creative may enter: deal numbers; -1 is the open market."""
        self._last_deal_reason = Reject.DEAL_ONLY
        places: list[int] = []
        for number in deals:
            reason = exclude.reject_deal(
                self.index, number, self.deals[number], seat, ad, self.tokens
            )
            if reason:
                self._last_deal_reason = reason
            else:
                places.append(number)
        if row.flags & snap.OPEN_MARKET and not imp.flags & ImpFlag.PRIVATE_AUCTION:
            places.append(OPEN_PLACE)
        return places

    # -- score and price --------------------------------------------------------------------------

    def _price(
        self,
        number: int,
        imp: SimpleNamespace,
        ready: list[tuple[int, int, list[int]]],
        groups: dict[int, Group],
    ) -> None:
        self.out["head"]["scored_count"] += len(ready)
        ctrs, cvrs = self._scores(number, ready)
        for position, (creative, line_item, places) in enumerate(ready):
            row = self.engine.line_items[line_item]
            ctr = row.prior_ctr if ctrs is None else float(ctrs[position])
            cvr = row.prior_cvr if cvrs is None else float(cvrs[position])
            self._enter(number, imp, creative, line_item, places, ctr, cvr, groups)

    def _scores(
        self, number: int, ready: list[tuple[int, int, list[int]]]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        if self.engine.scorer is None:
            return None, None
        hashes = features.request_features(
            self.tokens, number, self.terms.exchange, self.person.segments, self.hour
        )
        creatives = np.array([creative for creative, _, _ in ready], dtype=np.int32)
        return self.engine.scorer.score(hashes, creatives)

    def _enter(
        self,
        number: int,
        imp: SimpleNamespace,
        creative: int,
        line_item: int,
        places: list[int],
        ctr: float,
        cvr: float,
        groups: dict[int, Group],
    ) -> None:
        """Prices one creative in each competition it may enter, and ranks it there."""
        row, ad = self.engine.line_items[line_item], self.engine.creatives[creative]
        ratio = self.rates.ratio(row.currency, self.currency)
        if ratio is None:
            self._drop(line_item, creative, number, Reject.CURRENCY)
            return
        value = price.value_micros(row, ctr, cvr) * ratio
        if value <= 0.0 or value > CPM_MICROS_MAX:
            self._drop(line_item, creative, number, Reject.NO_VALUE)
            return
        most = self.rates.down(row.max_cpm_micros, row.currency, self.currency)
        paced_value = value
        if line_item < len(self.overlay):
            paced_value = price.paced(value, int(self.overlay[line_item]["multiplier_e6"]))
        for place in places:
            deal = self.deals[place] if place >= 0 else None
            at = price.auction_type(self.head, deal, self.terms)
            av = select.av_of(imp, ad.media)
            if deal is not None and at == price.FIXED_PRICE:
                # The agreed price is bidfloor, whatever the deal says by duration (section 3.2.12).
                amount, currency = deal.floor_micros, deal.floor_cur
                if amount <= 0:
                    self._drop(line_item, creative, number, Reject.FIXED_PRICE_UNKNOWN)
                    continue
            else:
                amount, currency = price.floor_of(imp, av, deal, ad.dur_s, self.durfloors)
            if amount and self.rates.ratio(currency, self.currency) is None:
                self._drop(line_item, creative, number, Reject.CURRENCY)
                continue
            floor = self.rates.up(amount, currency, self.currency) if amount else 0
            micros, reason = price.bid_price(at, value, paced_value, row.shade, floor, most)
            if reason:
                if reason == Reject.BELOW_FLOOR and deal is not None:
                    reason = Reject.BELOW_DEAL_FLOOR
                self._drop(line_item, creative, number, reason)
                continue
            w, h = self._size(imp, ad)
            candidate = Candidate(
                imp=number, deal=place, line_item=line_item, creative=creative,
                price_micros=micros, value_micros=round(paced_value), floor_micros=floor,
                ctr=ctr, cvr=cvr, at=at, w=w, h=h, dur_s=ad.dur_s, product=ad.product,
                media=ad.media, protocol=ad.protocol,
                tie=select.tie_break(self.head.id_hash, ad.key), separation=row.separation,
            )  # fmt: skip
            group = groups.setdefault(place, Group(number, place))
            rivals = select.rivals_max(imp, self.room, self.imps_count)
            limit = select.shortlist_max(imp, self.room)
            fallen = select.insert(group, candidate, limit, rivals)
            if fallen is not None:
                self._drop(fallen.line_item, fallen.creative, number, Reject.OUTRANKED)

    def _size(self, imp: SimpleNamespace, ad: SimpleNamespace) -> tuple[int, int]:
        if ad.media != Media.BANNER:
            return ad.w, ad.h
        return exclude.format_for(ad, imp, self.facts) or (ad.w, ad.h)

    # -- choice -----------------------------------------------------------------------------------

    def _choose(self) -> int:
        """Writes the short lists and marks what goes out; returns how many do."""
        choice = Choice(
            self.index.snapshot, self.engine.line_items, self.engine.creatives, self.imps
        )
        written = 0
        for group_number, group in enumerate(self.groups):
            if written + len(group.entries) > BIDS_MAX:
                break
            for passed, reason in choice.take(group):
                self._drop(passed.line_item, passed.creative, passed.imp, reason)
            chosen = {id(candidate) for candidate in choice.taken}
            for rank, candidate in enumerate(group.entries):
                self._write(written, group_number, rank, candidate, id(candidate) in chosen)
                written += 1
        self.out["head"]["bids_count"] = written
        return len(choice.taken)

    def _write(self, at: int, group: int, rank: int, candidate: Candidate, chosen: bool) -> None:
        bid = self.out["bids"][at]
        for name in (
            "price_micros", "value_micros", "floor_micros", "ctr", "cvr", "line_item", "creative",
            "w", "h", "dur_s", "product", "imp", "deal", "media", "protocol", "at",
        ):  # fmt: skip
            bid[name] = getattr(candidate, name)
        bid["group"], bid["rank"], bid["chosen"] = group, rank, chosen
