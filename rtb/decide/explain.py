"""A decision in words: per impression, every candidate with the first rule that dropped it, or
its score, value and price.

Pure: it reads what the engine wrote (`Decision`) and traced (`Trace`), and looks up names.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np

from rtb.base.money import currency_name, format_micros
from rtb.base.reasons import NoBid, Reject
from rtb.base.records import Decision, Dim, Media, Opportunity
from rtb.catalogue.snapshot import Snapshot
from rtb.decide.engine import Trace


@dataclass(frozen=True)
class Line:
    """One candidate on one impression: either dropped for `reason`, or priced."""

    line_item: str
    creative: str  # "" when the line item as a whole was dropped
    outcome: str  # "chosen", "short list" or "dropped"
    reason: str  # "" unless dropped
    deal: str = ""
    media: str = ""
    ctr: float = 0.0
    cvr: float = 0.0
    value_cpm: str = ""
    price_cpm: str = ""
    floor_cpm: str = ""
    rank: int = 0


@dataclass(frozen=True)
class ImpressionReport:
    """One impression."""

    imp: str
    bids: list[Line] = field(default_factory=list)
    dropped: list[Line] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """How many candidates each rule dropped, most first."""
        found: dict[str, int] = {}
        for line in self.dropped:
            found[line.reason] = found.get(line.reason, 0) + 1
        return dict(sorted(found.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class Report:
    """A whole request."""

    outcome: str  # "bid" or the NoBid
    currency: str
    contextual: bool
    generation: int
    snapshot: str
    imps: list[ImpressionReport]
    live: bool = False  # with budgets, pacing and caps of a running node

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        found = asdict(self)
        for imp, report in zip(found["imps"], self.imps, strict=True):
            imp["counts"] = report.counts()
        return found


def reason_name(number: int) -> str:
    """What a drop is called: "targeting: country", or the rule's name."""
    if 0 < number < 64:
        return f"targeting: {Dim(number).name.lower()}"
    return Reject(number).name.lower().replace("_", " ")


def explain(
    opportunity: Opportunity, decision: Decision, trace: Trace, snapshot: Snapshot
) -> Report:
    """The report of a decision that was made with this trace on this snapshot."""
    facts, data = opportunity.facts[0], decision.data[0]
    head = data["head"]
    currency = int(head["cur"])
    imps = []
    for number in range(int(facts["head"]["imps_count"])):
        imp = facts["imps"][number]
        name = opportunity.slice(int(imp["id_off"]), int(imp["id_len"])).decode(errors="replace")
        imps.append(
            ImpressionReport(
                name,
                list(_bids(opportunity, data, snapshot, number)),
                [*_traced(trace, snapshot, number), *_dropped(data, snapshot, number)],
            )
        )
    return Report(
        outcome=NoBid(int(head["nobid"])).name.lower(),
        currency=currency_name(currency) if currency else "",
        contextual=bool(head["contextual"]),
        generation=int(head["generation"]),
        snapshot=snapshot.content_hash,
        imps=imps,
    )


def _bids(opportunity: Opportunity, data: np.void, snapshot: Snapshot, imp: int) -> Iterator[Line]:
    for bid in data["bids"][: int(data["head"]["bids_count"])]:
        if bid["imp"] != imp:
            continue
        deal = ""
        if bid["deal"] >= 0:
            row = opportunity.facts[0]["deals"][int(bid["deal"])]
            deal = opportunity.slice(int(row["id_off"]), int(row["id_len"])).decode()
        yield Line(
            line_item=snapshot.id_of("line_items", int(bid["line_item"])),
            creative=snapshot.id_of("creatives", int(bid["creative"])),
            outcome="chosen" if bid["chosen"] else "short list",
            reason="",
            deal=deal,
            media=Media(int(bid["media"])).name.lower(),
            ctr=float(bid["ctr"]),
            cvr=float(bid["cvr"]),
            value_cpm=format_micros(int(bid["value_micros"])),
            price_cpm=format_micros(int(bid["price_micros"])),
            floor_cpm=format_micros(int(bid["floor_micros"])),
            rank=int(bid["rank"]),
        )


def _traced(trace: Trace, snapshot: Snapshot, imp: int) -> Iterator[Line]:
    """Line items that the index dropped."""
    for line_item, dim in sorted(trace.drops.get(imp, {}).items()):
        name = snapshot.id_of("line_items", line_item)
        yield Line(name, "", "dropped", reason_name(dim))


def _dropped(data: np.void, snapshot: Snapshot, imp: int) -> Iterator[Line]:
    """Candidates that a rule after the index dropped."""
    for drop in data["drops"][: int(data["head"]["drops_count"])]:
        if drop["imp"] != imp:
            continue
        creative = int(drop["creative"])
        yield Line(
            snapshot.id_of("line_items", int(drop["line_item"])),
            snapshot.id_of("creatives", creative) if creative >= 0 else "",
            "dropped",
            reason_name(int(drop["reason"])),
        )
