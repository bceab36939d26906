"""What must not run: the exchange's blocks and the person's history. First rule that drops wins.

Readable twin of `ext/engine/creatives.pxi`. Rules follow `Reject`, in its order.
"""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Final

import numpy as np

from rtb.base.errors import ProfileError
from rtb.base.reasons import Reject
from rtb.base.records import Dim, ImpFlag, Media, as_values
from rtb.catalogue import snapshot as snap
from rtb.decide.targeting import Index
from rtb.profiles import codec
from rtb.profiles import record as profile_record

ATTR_OWN_SKIP_BUTTON: Final = 1 << 16
MS_PER_S: Final = 1000
# An aspect ratio is another one when it differs by more than a fiftieth: less is rounding.
BOXING_PART: Final = 50
# regs.ext.dsa.dsarequired: 2 and 3 drop bids that do not say who is behind the ad.
DSA_REQUIRED: Final = 2
# regs.ext.dsa.pubrender + 1, and `dsa` of a creative.
PUBLISHER_SHOWS_NOTHING: Final = 1
PUBLISHER_SHOWS_IT: Final = 3
AD_SHOWS_IT: Final = 2
# IMG and DATA types of native assets (OpenRTB Native 1.2 section 7.4).
IMG_MAIN: Final = 3
KIND_TITLE, KIND_IMG, KIND_VIDEO, KIND_DATA = 1, 2, 3, 4


class Person:
    """A stored profile, opened for look-ups; or nobody.

    One that was made of counts alone has caps, but is nobody that we know. One whose counts are not
    known gets nothing that has caps.
    """

    def __init__(self, record: bytes | None) -> None:
        self.known = record is not None
        self.opted_out = self.uncounted = False
        self.segments: list[int] = []
        self.items: dict[int, tuple[int, int]] = {}
        self.categories: dict[int, tuple[int, int]] = {}
        self.caps: dict[int, tuple[int, int]] = {}
        self.opt_outs: set[int] = set()
        if record is not None:
            try:
                codec.check(record)
            except ProfileError:
                self.known = False  # what breaks its layout is nobody
                return
            self._open(record)

    def _open(self, record: bytes) -> None:
        head = np.frombuffer(record, profile_record.HEADER, 1)[0]
        at = profile_record.HEADER.itemsize

        def take(dtype: object, count: int) -> np.ndarray:
            nonlocal at
            part = np.frombuffer(record, dtype, count, at)  # type: ignore[call-overload]
            at += part.nbytes
            return part  # type: ignore[no-any-return]

        def entries(count: int) -> dict[int, tuple[int, int]]:
            part = take(profile_record.ENTRY, count)
            return {int(e["hash"]): (int(e["time_s"]), int(e["value"])) for e in part}

        self.opted_out = bool(head["flags"] & profile_record.OPT_OUT)
        self.known = not head["flags"] & profile_record.COUNTS_ONLY
        self.uncounted = bool(head["flags"] & profile_record.UNCOUNTED)
        self.segments = take("<u8", int(head["segments_count"])).tolist()
        self.items = entries(int(head["items_count"]))
        self.categories = entries(int(head["categories_count"]))
        self.caps = entries(int(head["caps_count"]))
        entries(int(head["viewed_count"]))
        entries(int(head["cart_count"]))
        self.opt_outs = set(take("<u8", int(head["opt_outs_count"])).tolist())
        if self.opted_out:
            # A general no leaves the request without a person.
            self.__init__(None)  # type: ignore[misc]
            self.opted_out = True


class Blocks:
    """The request's block and allow lists, resolved against the snapshot.

    `listed` is `head.blocks`: a list may be there without a token, when nothing in it can be read.
    """

    def __init__(self, index: Index, tokens: np.ndarray, listed: int) -> None:
        self._listed = listed
        self.hashes: dict[int, set[int]] = {}
        self.ordinals: dict[int, set[int]] = {}
        for token in tokens:
            dim = int(token["dim"])
            if dim < 64 or token["imp"] >= 0:
                continue
            self.hashes.setdefault(dim, set()).add(int(token["hash"]))
            value = index.value(int(token["hash"]))
            if value is not None:
                self.ordinals.setdefault(dim, set()).add(value.ordinal)

    def has(self, dim: Dim) -> bool:
        """Whether a list is there and has an entry, understood or not."""
        return bool(self._listed >> (dim - Dim.BCAT) & 1)

    def of(self, dim: Dim) -> set[int]:
        """The entries of a list that were understood, as token hashes."""
        return self.hashes.get(dim, set())

    def meets(self, dim: Dim, ordinals: Iterable[int]) -> bool:
        return not self.ordinals.get(dim, set()).isdisjoint(ordinals)


def reject_person(index: Index, line_item: SimpleNamespace, person: Person, now_ms: int) -> Reject:
    """Rules about this person and this line item as a whole."""
    if line_item.flags & snap.NEEDS_PROFILE and not person.known:
        return Reject.NEEDS_PROFILE
    advertiser = as_values(index.snapshot["advertisers"][line_item.advertiser])
    if advertiser.key in person.opt_outs:
        return Reject.OPTED_OUT
    return reject_capped(index, line_item, person, now_ms)


def reject_capped(index: Index, owner: SimpleNamespace, person: Person, now_ms: int) -> Reject:
    """Whether the person has seen a line item or a creative as often as one of its caps allows, or
    may have.
    """
    if person.uncounted and owner.caps_count:
        return Reject.FREQUENCY_CAP
    start = owner.caps_start
    for raw in index.snapshot["caps"][start : start + owner.caps_count]:
        cap = as_values(raw)
        seen = person.caps.get(cap.hash)
        if seen is None or seen[1] < cap.count:
            continue
        if cap.window_s == 0 or now_ms < (seen[0] + cap.window_s) * MS_PER_S:
            return Reject.FREQUENCY_CAP
    return Reject.NONE


def reject_history(
    index: Index,
    line_item: SimpleNamespace,
    creative: SimpleNamespace,
    person: Person,
    now_ms: int,
) -> Reject:
    """Rules about the product that a creative shows: stock, and what the person bought."""
    if creative.product < 0:
        return Reject.NONE
    if not creative.available:
        return Reject.OUT_OF_STOCK
    bought = person.items.get(creative.item)
    if bought and now_ms < (bought[0] + line_item.item_window_s) * MS_PER_S:
        return Reject.PURCHASED_ITEM
    if line_item.category_window_s:
        product = as_values(index.snapshot["products"][creative.product])
        start = product.categories_start
        hashes = index.snapshot["product_categories"][start : start + product.categories_count]
        for category in hashes.tolist():
            bought = person.categories.get(category)
            if bought and now_ms < (bought[0] + line_item.category_window_s) * MS_PER_S:
                return Reject.PURCHASED_CATEGORY
    return Reject.NONE


def reject_creative(
    index: Index,
    creative: SimpleNamespace,
    imp: SimpleNamespace,
    facts: np.void,
    blocks: Blocks,
    exchange: int,
) -> Reject:
    """Rules of the exchange and the placement about one creative."""
    if not imp.media >> creative.media & 1:
        return Reject.MEDIA
    start = creative.statuses_start
    statuses = index.snapshot["creative_statuses"][start : start + creative.statuses_count]
    if exchange in statuses.tolist():
        return Reject.EXCHANGE_STATUS
    if facts["head"]["dsarequired"] >= DSA_REQUIRED and not _is_transparent(creative, facts):
        return Reject.TRANSPARENCY
    if imp.flags & ImpFlag.SECURE and not creative.secure:
        return Reject.SECURE
    if creative.media == Media.BANNER:
        reason = _reject_banner(creative, imp, facts)
    elif creative.media == Media.NATIVE:
        reason = _reject_native(index, creative, imp, facts)
    else:
        av = imp.video if creative.media == Media.VIDEO else imp.audio
        reason = _reject_av(index, creative, av)
    return reason or _reject_blocked(index, creative, blocks, int(facts["head"]["cattax"]))


def _is_transparent(creative: SimpleNamespace, facts: np.void) -> bool:
    """Whether somebody says who is behind the ad, and just one of publisher and ad shows it."""
    shown_by = int(facts["head"]["pubrender"])
    if shown_by == PUBLISHER_SHOWS_NOTHING:
        return bool(creative.dsa == AD_SHOWS_IT)
    twice = shown_by == PUBLISHER_SHOWS_IT and creative.dsa == AD_SHOWS_IT
    return bool(creative.dsa) and not twice


def format_for(
    creative: SimpleNamespace, imp: SimpleNamespace, facts: np.void
) -> tuple[int, int] | None:
    """The width and height that a banner would be shown in, None when it fits no format.

    A creative of size 0x0 is responsive: it takes the first format, and none where none is said,
    since a bid without a size is refused. Flex formats (wratio, hratio)
    take exact multiples of the ratio from wmin on (OpenRTB 2.6 section 3.2.10). A range takes what
    is within it (wmin, wmax, hmin, hmax of OpenRTB 2.0 to 2.5), and what is responsive at its most.
    """
    responsive = creative.w == 0
    formats = facts["formats"][imp.formats_start : imp.formats_start + imp.formats_count]
    for raw in formats:
        form = as_values(raw)
        if form.w > 0:
            if responsive:
                return form.w, form.h
            if (creative.w, creative.h) == (form.w, form.h):
                return form.w, form.h
        elif form.wratio > 0:
            if responsive:
                if form.wmin > 0:
                    return form.wmin, form.wmin * form.hratio // form.wratio
            elif creative.w * form.hratio == creative.h * form.wratio and creative.w >= form.wmin:
                return creative.w, creative.h
        elif responsive:
            w, h = form.wmax or form.wmin, form.hmax or form.hmin
            if w and h:
                return w, h
        elif _is_within(creative.w, form.wmin, form.wmax) and _is_within(
            creative.h, form.hmin, form.hmax
        ):
            return creative.w, creative.h
    return None


def _is_within(side: int, least: int, most: int) -> bool:
    """Whether a side is in a range whose ends are open where they are 0."""
    return side >= least and (not most or side <= most)


def _reject_banner(creative: SimpleNamespace, imp: SimpleNamespace, facts: np.void) -> Reject:
    if format_for(creative, imp, facts) is None:
        return Reject.SIZE
    if imp.banner_btype >> creative.btype & 1:
        return Reject.CREATIVE_TYPE
    if creative.attr & imp.banner_battr:
        return Reject.CREATIVE_ATTRIBUTE
    if imp.banner_mimes and not creative.mime & imp.banner_mimes:
        return Reject.MIME
    if creative.api & ~imp.banner_api:
        return Reject.API
    if imp.banner_expdir and creative.expand & ~imp.banner_expdir:
        return Reject.EXPANDABLE
    return Reject.NONE


def duration_fits(creative_s: int, av: SimpleNamespace) -> bool:
    """Exact durations where they are listed, else the range (OpenRTB 2.6 section 3.2.7)."""
    exact = [seconds for seconds in av.rqddurs_s if seconds]
    if av.poddur_s and creative_s > av.poddur_s:
        return False
    if exact:
        return creative_s in exact
    return bool(
        creative_s >= av.minduration_s and (not av.maxduration_s or creative_s <= av.maxduration_s)
    )


def _reject_av(index: Index, creative: SimpleNamespace, av: SimpleNamespace) -> Reject:
    if creative.attr & av.battr:
        return Reject.CREATIVE_ATTRIBUTE
    if av.skip == 1 and creative.attr & ATTR_OWN_SKIP_BUTTON:
        return Reject.CREATIVE_ATTRIBUTE
    if av.mimes and not creative.mime & av.mimes:
        return Reject.MIME
    if creative.api & ~av.api:
        return Reject.API
    if av.protocols and not av.protocols >> creative.protocol & 1:
        return Reject.PROTOCOL
    if not duration_fits(creative.dur_s, av):
        return Reject.DURATION
    if av.linearity and creative.linearity and av.linearity != creative.linearity:
        return Reject.LINEARITY
    if av.skip == 0 and creative.skip_s >= 0:
        return Reject.SKIP
    return _reject_renditions(index, creative, av)


def _reject_renditions(index: Index, creative: SimpleNamespace, av: SimpleNamespace) -> Reject:
    """NONE when one rendition fits in all respects; else why the one that got furthest does not."""
    start = creative.renditions_start
    rows = index.snapshot["renditions"][start : start + creative.renditions_count]
    left = [as_values(row) for row in rows]
    for reason, fits in _RENDITION_RULES:
        left = [file for file in left if fits(file, av)]
        if not left:
            return reason
    return Reject.NONE


def _mime_fits(file: SimpleNamespace, av: SimpleNamespace) -> bool:
    return bool(not av.mimes or file.mime & av.mimes)


def _bitrate_fits(file: SimpleNamespace, av: SimpleNamespace) -> bool:
    """Whether a rate is within the range, which is open at 0; an unknown one is."""
    kbps, most = file.bitrate_kbps, av.maxbitrate_kbps
    return not kbps or (kbps >= av.minbitrate_kbps and (not most or kbps <= most))


def _delivery_fits(file: SimpleNamespace, av: SimpleNamespace) -> bool:
    return bool(not av.delivery or not file.delivery or av.delivery & file.delivery)


def _fills(file: SimpleNamespace, av: SimpleNamespace) -> bool:
    """Whether a file needs no bars beside it where the player allows none (`boxingallowed`)."""
    if av.boxing or not (av.w and av.h and file.w and file.h):
        return True
    ours, theirs = file.w * av.h, file.h * av.w
    return bool(abs(ours - theirs) * BOXING_PART <= theirs)


_RENDITION_RULES: Final = (
    (Reject.MIME, _mime_fits),
    (Reject.BITRATE, _bitrate_fits),
    (Reject.DELIVERY, _delivery_fits),
    (Reject.SIZE, _fills),
)


def _reject_native(
    index: Index, creative: SimpleNamespace, imp: SimpleNamespace, facts: np.void
) -> Reject:
    if creative.attr & imp.native_battr:
        return Reject.CREATIVE_ATTRIBUTE
    if creative.api & ~imp.native_api:
        return Reject.API
    start = creative.assets_start
    ours = [
        as_values(row) for row in index.snapshot["assets"][start : start + creative.assets_count]
    ]
    rows = facts["assets"][imp.assets_start : imp.assets_start + imp.assets_count]
    asked = [as_values(row) for row in rows]
    needed = [row for row in asked if row.required]
    if _clash(asked) or not all(any(asset_fits(row, asset) for asset in ours) for row in needed):
        return Reject.NATIVE_ASSET
    return Reject.NONE


def _clash(asked: list[SimpleNamespace]) -> bool:
    """Whether a required asset has the id of another one, which the answer then has: it names its
    assets by id, so it has one of each.
    """
    first: dict[int, dict[str, object]] = {}
    for row in asked:
        content = vars(row) | {"required": 0}
        if first.setdefault(row.id, content) != content and row.required:
            return True
    return False


def asset_fits(asked: SimpleNamespace, ours: SimpleNamespace) -> bool:
    """Whether an asset of ours answers one that a native request asks for (Native 1.2, 4.2-4.6)."""
    if asked.kind != ours.kind:
        return False
    if asked.kind == KIND_TITLE:
        return not asked.len or ours.chars <= asked.len
    if asked.kind == KIND_DATA:
        return asked.type == ours.type and (not asked.len or ours.chars <= asked.len)
    if asked.kind == KIND_IMG:
        return (
            (asked.type or IMG_MAIN) == ours.type
            and _length_fits(asked.w, asked.wmin, ours.w)
            and _length_fits(asked.h, asked.hmin, ours.h)
            and (not asked.mimes or bool(asked.mimes & ours.mime))
        )
    return (
        ours.dur_s >= asked.minduration_s
        and (not asked.maxduration_s or ours.dur_s <= asked.maxduration_s)
        and (not asked.protocols or bool(asked.protocols >> ours.protocol & 1))
        and (not asked.mimes or bool(asked.mimes & ours.mime))
    )


def _length_fits(exact: int, least: int, ours: int) -> bool:
    """`w` without `wmin` is exact; with `wmin` it is only a preference."""
    if least:
        return ours >= least
    return not exact or ours == exact


def _reject_blocked(
    index: Index, creative: SimpleNamespace, blocks: Blocks, taxonomy: int
) -> Reject:
    asked = creative.language and blocks.has(Dim.WLANG)
    if asked and creative.language not in blocks.of(Dim.WLANG):
        return Reject.LANGUAGE
    start = creative.categories_start
    stop = start + creative.categories_count
    categories = index.snapshot["creative_categories"][start:stop].tolist()
    if blocks.meets(Dim.BCAT, categories):
        return Reject.BLOCKED_CATEGORY
    if blocks.has(Dim.ACAT) and not _is_allowed(index, creative, blocks, taxonomy):
        return Reject.NOT_ALLOWED_CATEGORY
    start = creative.domains_start
    domains = index.snapshot["creative_domains"][start : start + creative.domains_count].tolist()
    if blocks.meets(Dim.BADV, domains):
        return Reject.BLOCKED_ADVERTISER
    if creative.bundle and creative.bundle in blocks.of(Dim.BAPP):
        return Reject.BLOCKED_APP
    return Reject.NONE


def _is_allowed(index: Index, creative: SimpleNamespace, blocks: Blocks, taxonomy: int) -> bool:
    """Whether `acat` has every category that a creative has in its taxonomy, or what it is part of.

    Who has none there may be anything.
    """
    start = creative.codes_start
    codes = index.snapshot["creative_codes"][start : start + creative.codes_count]
    codes = codes[codes["taxonomy"] == taxonomy]
    pairs = zip(codes["ordinal"].tolist(), codes["parent"].tolist(), strict=True)
    return len(codes) > 0 and all(blocks.meets(Dim.ACAT, pair) for pair in pairs)


def seat_of(index: Index, advertiser: int, terms: SimpleNamespace) -> SimpleNamespace:
    """The seat hashes that an advertiser bids with on this exchange: its own, or the default."""
    row = as_values(index.snapshot["advertisers"][advertiser])
    for raw in index.snapshot["seats"][row.seats_start : row.seats_start + row.seats_count]:
        seat = as_values(raw)
        if seat.exchange == terms.exchange:
            return seat
    return _default_seat(terms)


def _default_seat(terms: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(hash_w=terms.seat_w, hash_b=terms.seat_b, hash_dw=terms.seat_dw)


def is_blocked(index: Index, terms: SimpleNamespace, blocks: Blocks) -> bool:
    """Whether no seat of ours on this exchange may bid: not the default, nor any advertiser's."""
    seats = index.snapshot["seats"]
    ours = [as_values(raw) for raw in seats[seats["exchange"] == terms.exchange]]
    return all(reject_seat(seat, blocks) for seat in (_default_seat(terms), *ours))


def reject_seat(seat: SimpleNamespace, blocks: Blocks) -> Reject:
    """`wseat` names who may bid, `bseat` who may not (OpenRTB 2.6 section 3.2.1)."""
    if blocks.has(Dim.WSEAT) and seat.hash_w not in blocks.of(Dim.WSEAT):
        return Reject.SEAT
    if seat.hash_b in blocks.of(Dim.BSEAT):
        return Reject.SEAT
    return Reject.NONE


def reject_deal(
    index: Index,
    deal_number: int,
    deal: SimpleNamespace,
    seat: SimpleNamespace,
    creative: SimpleNamespace,
    tokens: np.ndarray,
) -> Reject:
    """`deal.wseat` and `deal.wadomain` restrict that deal only (OpenRTB 2.6 section 3.2.12)."""
    of_deal = tokens[tokens["imp"] == deal_number]
    if deal.has_wseat:
        allowed = of_deal["hash"][of_deal["dim"] == Dim.DEAL_WSEAT].tolist()
        if seat.hash_dw not in allowed:
            return Reject.DEAL_SEAT
    if deal.has_wadomain:
        start = creative.domains_start
        ours = index.snapshot["creative_domains"][start : start + creative.domains_count].tolist()
        for token in of_deal["hash"][of_deal["dim"] == Dim.DEAL_WADOMAIN].tolist():
            value = index.value(token)
            if value is not None and value.ordinal in ours:
                return Reject.NONE
        return Reject.DEAL_ADVERTISER
    return Reject.NONE
