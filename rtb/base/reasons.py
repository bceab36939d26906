"""Why there is no bid: numbered, documented, counted, never an exception.

`NoBid` explains a whole request, `Reject` one candidate (a line item or one of its creatives) on
one impression. Numbers are stable: they are in counters, journals and dashboards. The order of
`Reject` is the order in which the rules are applied, so the first rule that fails names the drop.
"""

from enum import IntEnum


class NoBid(IntEnum):
    """Outcome of one request. 0 = we bid. `nbr` maps to OpenRTB 2.6 list "No-Bid Reason Codes"."""

    BID = 0
    NO_CANDIDATE = 1  # nothing eligible on any impression; the Rejects tell why
    MALFORMED = 2  # answered 400
    UNSUPPORTED_CURRENCY = 3  # none of request.cur is in the rates file
    TOO_LARGE = 4  # body, decompressed body or block list over its limit
    TIMEOUT = 5  # the deadline came first
    SHED = 6  # overload: answered before work was done
    SEAT_BLOCKED = 7  # every seat we could use is outside wseat or in bseat
    NO_SNAPSHOT = 8  # nothing to serve yet
    DRAINING = 9  # this worker is on its way out
    NO_IMPRESSION = 10  # every impression is unusable (no known media, impossible sizes)
    PAID_BIDDING_STOPPED = 11  # the journal cannot take records: money fails closed
    UNSUPPORTED_VERSION = 12  # OpenRTB 3.0 envelope
    TMAX_TOO_SHORT = 13  # tmax leaves no time after the margin

    @property
    def nbr(self) -> int:
        """The exchange-facing no-bid reason code (OpenRTB 2.6, AdCOM list)."""
        return _NBR.get(self, 0)


_NBR = {
    NoBid.MALFORMED: 2,
    NoBid.UNSUPPORTED_VERSION: 2,
    NoBid.TIMEOUT: 15,
    NoBid.TMAX_TOO_SHORT: 15,
    NoBid.SHED: 1,
    NoBid.NO_SNAPSHOT: 1,
    NoBid.DRAINING: 1,
    NoBid.PAID_BIDDING_STOPPED: 1,
    NoBid.TOO_LARGE: 2,
    NoBid.NO_IMPRESSION: 2,
}


class Reject(IntEnum):
    """The first rule that dropped a candidate, in the order in which rules are applied.

    1-63: one per targeting dimension (the number is the `Dim`), found by the index.
    64-: rules after the index.
    """

    NONE = 0
    # 1..63 are Dim numbers, see `records.Dim`
    TARGETING_EXPRESSION = 64  # the part of a boolean expression that the index cannot hold
    PAUSED = 65  # overlay bit
    FLIGHT = 66  # outside every flight
    DEAL_ONLY = 67  # line item buys deals only and none of them is offered
    PRIVATE_AUCTION = 68  # private_auction=1 and no listed deal is ours
    DEAL_SEAT = 69  # deal.wseat does not name our seat
    SEAT = 70  # request wseat/bseat
    NEEDS_PROFILE = (
        71  # line item asks for a known person; this request may not or does not have one
    )
    OPTED_OUT = 72  # the profile says no to this advertiser or to all
    FREQUENCY_CAP = 73
    TRUNCATED = 74  # more candidates than the limit for one impression
    BELOW_SHORTLIST = 75  # its highest value misses a full short list: not looked at any further
    EXHAUSTED = 76  # its budget, or one above it, has nothing left for another impression
    PACED = 77  # pacing lets this request pass
    # creative level
    MEDIA = 80
    SIZE = 81  # of a banner; of a video, another shape than the player's where no bars are allowed
    SECURE = 82
    CREATIVE_TYPE = 83  # btype
    CREATIVE_ATTRIBUTE = 84  # battr, or attr 16 where the publisher imposes skip
    MIME = 85
    API = 86
    PROTOCOL = 87
    DURATION = 88
    BITRATE = 89  # of every file whose type is taken
    LINEARITY = 90
    SKIP = 91
    LANGUAGE = 92
    EXPANDABLE = 93
    NATIVE_ASSET = 94  # a required asset that we lack, or that has the id of another one
    BLOCKED_CATEGORY = 95
    NOT_ALLOWED_CATEGORY = 96  # acat lacks one of its categories, or it has none
    BLOCKED_ADVERTISER = 97
    BLOCKED_APP = 98
    DEAL_ADVERTISER = 99  # deal.wadomain
    RATING = 100
    DELIVERY = 101
    OUT_OF_STOCK = 102
    PURCHASED_ITEM = 103
    PURCHASED_CATEGORY = 104
    TRANSPARENCY = 106  # regs.ext.dsa requires what nobody says, or nobody shows, or both would
    EXCHANGE_STATUS = 105  # the creative is not approved on this exchange
    # price and selection
    NO_VALUE = 110  # value is zero, negative or not finite
    CURRENCY = 111  # no rate between the line item's and the response's currency
    BELOW_FLOOR = 112
    BELOW_DEAL_FLOOR = 113
    OVER_MAX_BID = 114  # a fixed-price deal or a floor asks more than the line item pays
    FIXED_PRICE_UNKNOWN = 115  # a fixed-price deal without bidfloor names no price to bid
    OUTRANKED = 120  # a better candidate of ours took the place
    SEPARATION = 121  # a competitor, the same line item or creative, or what its pod wants once
    POD_FULL = 122  # no seconds or slots left in the pod
    BUDGET = 123  # the grant does not cover it
    DEADLINE = 124  # the ladder cut it
    MULTIPLIER = 125  # an impression counts for more than the exchange's `multiplier_max` may bill
