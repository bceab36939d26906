"""Which bids go out: rank inside each competition, then choose across the request.

Readable twin of `ext/engine/choice.pxi`. A competition (`group`) is one impression and one
deal, or one impression and the open market: deal bids never compete with open ones inside us
(OpenRTB 2.6 section 7.3). Each keeps a short list, so that the commit step can fall back when a
budget refuses; `chosen` marks what goes out when none does.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Final

from rtb.base.hashing import mix64
from rtb.base.reasons import Reject
from rtb.base.records import BIDS_MAX, Media
from rtb.catalogue import snapshot as snap

SHORTLIST_MAX: Final = 4  # of a request with one impression
SHORTLIST_CAP: Final = 16  # of any; a dynamic pod takes several from one list
# video.poddedupe: what no two bids of a pod may share. A creative (3) they never do.
DEDUPE_DOMAIN: Final = 1 << 1
DEDUPE_CATEGORY: Final = 1 << 2
DEDUPE_FILE: Final = 1 << 4


@dataclass
class Candidate:
    """One creative of one line item that may run, with its price in one competition."""

    imp: int
    deal: int
    line_item: int
    creative: int
    price_micros: int
    value_micros: int
    floor_micros: int
    ctr: float
    cvr: float
    at: int
    w: int
    h: int
    dur_s: int
    product: int
    media: int
    protocol: int
    tie: int
    separation: int  # competitive group of the line item, -1 none


@dataclass
class Group:
    """One competition's short list, best first."""

    imp: int
    deal: int
    entries: list[Candidate] = field(default_factory=list)


def shortlist_room(imps: int, competitions: int, separates: bool) -> int:
    """How long the short lists of a request are.

    Each other impression may take a line item of a list, so each makes the list one longer; where
    competitors are kept apart it may rule out many. All lists have to find room in a decision.

    imps, competitions: that can be bid on; separates: whether any line item has competitors
    """
    if imps <= 1:
        return SHORTLIST_MAX
    wanted = SHORTLIST_CAP if separates else min(SHORTLIST_MAX + imps - 1, SHORTLIST_CAP)
    return max(min(wanted, BIDS_MAX // competitions), SHORTLIST_MAX)


def shortlist_max(imp: SimpleNamespace, room: int) -> int:
    """How long a short list of an impression may be: longer where a dynamic pod is offered."""
    return SHORTLIST_CAP if _is_dynamic(imp) else room


def rivals_max(imp: SimpleNamespace, room: int, imps: int) -> int:
    """How many line items of one separation group a list may hold, if that is fewer than its room.

    What goes out elsewhere may rule out the whole group. So the last places of a list that is long
    for its sake are for others; line items of one advertiser, which are no rivals, may still fill
    all impressions.
    """
    limit = shortlist_max(imp, room)
    if imps <= 1 and not _is_dynamic(imp):
        return limit
    return max(limit - SHORTLIST_MAX, imps)


def _is_dynamic(imp: SimpleNamespace) -> bool:
    """Whether a stretch of time is offered, for several bids."""
    return bool(imp.video.poddur_s > 0 or imp.audio.poddur_s > 0)


def tie_break(seed: int, creative_key: int) -> int:
    """Chance among equals: the same for the same request, spread over creatives."""
    return mix64(seed ^ creative_key)


def better(one: Candidate, other: Candidate) -> bool:
    """Higher value first, then price, then the draw, then catalogue order."""
    mine = (one.value_micros, one.price_micros, one.tie)
    theirs = (other.value_micros, other.price_micros, other.tie)
    if mine != theirs:
        return mine > theirs
    return (one.line_item, one.creative) < (other.line_item, other.creative)


def insert(group: Group, candidate: Candidate, limit: int, rivals: int) -> Candidate | None:
    """Puts a candidate in its place; returns the one that fell off, if any.

    A line item holds one place: its best creative; a separation group at most `rivals`.
    """
    entries = group.entries
    for position, entry in enumerate(entries):
        if entry.line_item == candidate.line_item:
            if not better(candidate, entry):
                return candidate
            del entries[position]
            _place(entries, candidate)
            return entry
    if candidate.separation >= 0:
        same = [entry for entry in entries if entry.separation == candidate.separation]
        if len(same) >= rivals:
            if not better(candidate, same[-1]):
                return candidate
            entries.remove(same[-1])
            _place(entries, candidate)
            return same[-1]
    _place(entries, candidate)
    return entries.pop() if len(entries) > limit else None


def crowd(group: Group, rivals: int) -> tuple[int, int]:
    """The first separation group that has `rivals` places, and the value of its last; -1: none."""
    for first in group.entries:
        same = [entry for entry in group.entries if entry.separation == first.separation]
        if first.separation >= 0 and len(same) >= rivals:
            return first.separation, same[-1].value_micros
    return -1, 0


def _place(entries: list[Candidate], candidate: Candidate) -> None:
    position = 0
    while position < len(entries) and better(entries[position], candidate):
        position += 1
    entries.insert(position, candidate)


@dataclass
class Choice:
    """What has been chosen so far in a request, to keep competitors and repeats apart."""

    snapshot: snap.Snapshot
    line_items: list[SimpleNamespace]
    creatives: list[SimpleNamespace]
    imps: list[SimpleNamespace]
    taken: list[Candidate] = field(default_factory=list)

    def conflict(self, candidate: Candidate) -> Reject:
        """Why this candidate may not stand beside those chosen, or NONE."""
        for other in self.taken:
            pod = self._same_pod(candidate, other)
            if candidate.imp == other.imp and not pod:
                continue  # a deal bid and an open bid for one place: one of them wins at most
            reason = self._between(candidate, other, pod)
            if reason:
                return reason
        return Reject.NONE

    def _between(self, one: Candidate, other: Candidate, pod: int) -> Reject:
        ours, theirs = self.line_items[one.line_item], self.line_items[other.line_item]
        same_line_item = one.line_item == other.line_item
        if same_line_item and (pod or not ours.flags & snap.REPEAT):
            return Reject.SEPARATION
        if pod:
            if self.creatives[one.creative].key == self.creatives[other.creative].key:
                return Reject.SEPARATION
            if self._share(self.creatives[one.creative], self.creatives[other.creative], pod):
                return Reject.SEPARATION
        if (
            ours.separation >= 0
            and ours.separation == theirs.separation
            and ours.advertiser != theirs.advertiser
        ):
            return Reject.SEPARATION
        return Reject.NONE

    def _share(self, one: SimpleNamespace, other: SimpleNamespace, pod: int) -> bool:
        """Whether two creatives share what a pod wants once: as their bids say it."""
        found = (
            (DEDUPE_DOMAIN, self._domains),
            (DEDUPE_CATEGORY, self._categories),
            (DEDUPE_FILE, self._files),
        )
        return any(pod & bit and of(one) & of(other) for bit, of in found)

    def _domains(self, creative: SimpleNamespace) -> set[int]:
        start = creative.adomains_start
        domains = self.snapshot["creative_domains"][start : start + creative.adomains_count]
        return set(domains.tolist())

    def _categories(self, creative: SimpleNamespace) -> set[int]:
        start = creative.codes_start
        codes = self.snapshot["creative_codes"][start : start + creative.codes_count]
        return set(codes["ordinal"][codes["told"] != 0].tolist())

    def _files(self, creative: SimpleNamespace) -> set[int]:
        start = creative.renditions_start
        files = self.snapshot["renditions"][start : start + creative.renditions_count]
        return set(files["url"].tolist())

    def _same_pod(self, one: Candidate, other: Candidate) -> int:
        """0, or 1 | the pod's dedupe mask, whichever slot says it, when both stand in one pod."""
        av, other_av = self._av(one), self._av(other)
        if av is None or other_av is None:
            return 0
        dynamic = one.imp == other.imp and av.poddur_s > 0
        if dynamic or (one.imp != other.imp and av.podid and av.podid == other_av.podid):
            return int(1 | av.poddedupe | other_av.poddedupe)
        return 0

    def _av(self, candidate: Candidate) -> SimpleNamespace | None:
        return av_of(self.imps[candidate.imp], candidate.media)

    def reject(self, candidate: Candidate) -> Reject:
        """Why this candidate may not go out besides those chosen, or NONE."""
        av = self._av(candidate)
        if av is not None and av.poddur_s > 0:
            # A pod is one stretch of time, whatever deals its bids name.
            in_pod = [
                each for each in self.taken if each.imp == candidate.imp and self._is_pod(each)
            ]
            full = 0 < av.maxseq <= len(in_pod)
            if full or sum(each.dur_s for each in in_pod) + candidate.dur_s > av.poddur_s:
                return self.conflict(candidate) or Reject.POD_FULL
        return self.conflict(candidate)

    def take(self, group: Group) -> list[tuple[Candidate, Reject]]:
        """Chooses from one group; returns what was passed over before the last choice, and why."""
        passed: list[tuple[Candidate, Reject]] = []
        count = 0
        for candidate in group.entries:
            if count and not self._is_pod(candidate):
                break
            reason = self.reject(candidate)
            if reason:
                passed.append((candidate, reason))
                continue
            self.taken.append(candidate)
            count += 1
        return passed

    def _is_pod(self, candidate: Candidate) -> bool:
        av = self._av(candidate)
        return av is not None and av.poddur_s > 0


def av_of(imp: SimpleNamespace, media: int) -> SimpleNamespace | None:
    """The video or audio placement that a creative of this media would fill."""
    if media == Media.VIDEO:
        return imp.video  # type: ignore[no-any-return]
    if media == Media.AUDIO:
        return imp.audio  # type: ignore[no-any-return]
    return None
