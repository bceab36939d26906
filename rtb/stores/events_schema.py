"""The fields of exported events: one table for all kinds of records, so that any two can be joined.

    events/schema.json                                      this list
    events/<YYYY-MM-DD>/<node>-<worker>-<journal>-<first>.parquet   a segment of a journal, whole
    events/progress/<worker>.json                           how far a journal is exported

Fields are only ever added, at the end; whoever changes the meaning of one raises VERSION. What is
not said in a record, or has no meaning for its kind, is null.
"""

from typing import Final, NamedTuple

import msgspec

VERSION: Final = 1
# A record is exported at least once: rows that agree in these are the same one.
KEY: Final = ("node", "worker", "journal", "sequence")
JOIN: Final = "bid"

INT, LONG, TEXT, FLAG, MOMENT = "int32", "int64", "string", "bool", "timestamp[ms, UTC]"
TEXTS, INTS, BYTES = "list<string>", "list<int32>", "binary"


class Field(NamedTuple):
    """A column: its name, its type in Parquet, and what it means."""

    name: str
    type: str
    meaning: str


FIELDS: Final = (
    # what identifies a record
    Field("node", INT, "number of the node that wrote it"),
    Field("worker", INT, "number of the worker"),
    Field("journal", TEXT, "identity of the worker's journal; one that is made anew has another"),
    Field("sequence", LONG, "position in the journal, from 1"),
    Field("kind", TEXT, "bid, win, bill, loss, impression, click, view, video, conversion, order, "
          "event, link; a number where we do not know it"),
    Field("time", MOMENT, "when the bid was made, or the notice arrived"),
    # whose
    Field("bid", TEXT, "id of the bid as the answer has it (`seatbid.bid.id`): 16 hex digits"),
    Field("test", FLAG, "of a request with test=1: counts nowhere"),
    Field("exchange", TEXT, "its name in the settings"),
    Field("exchange_key", TEXT, "hash of its name"),
    Field("media", TEXT, "banner, video, audio or native"),
    Field("advertiser", TEXT, "id in the catalogue that was served when this was exported"),
    Field("advertiser_key", TEXT, "its key in the books"),
    Field("campaign", TEXT, "id in the catalogue"),
    Field("campaign_key", TEXT, "its key in the books"),
    Field("line_item", TEXT, "id in the catalogue"),
    Field("line_item_key", TEXT, "its key, as the record has it"),
    Field("creative", TEXT, "id in the catalogue"),
    Field("creative_key", TEXT, "its key, as the record has it"),
    Field("product", TEXT, "id in the catalogue"),
    Field("product_key", TEXT, "its key, as the record has it"),
    Field("person", TEXT, "hash by which the profile store knows somebody; null: nobody"),
    Field("target", TEXT, "keyed hash of the landing page that was promised"),
    Field("secret", INT, "id of the secret that signed the notices"),
    # money
    Field("currency", TEXT, "of the line item, and of all amounts in nanos"),
    Field("bid_price_micros", LONG, "CPM that was bid, in the bid's currency"),
    Field("rate_e9", LONG, "units of `currency` for one of the bid's currency, times 1e9"),
    Field("bid_nanos", LONG, "what one impression costs at the bid price"),
    Field("reserve_nanos", LONG, "of a bid: what was taken from the lease"),
    Field("expected", FLAG, "the bid reserved its price times its chance"),
    Field("auction_type", INT, "of a bid: 1 first price, 2 second price"),
    Field("price_micros", LONG, "CPM in a win, bill or impression, in the bid's currency"),
    Field("price_state", TEXT, "none, ok, empty, audit, unsubstituted, garbage, above_bid"),
    Field("multiplier_e6", LONG, "impressions of the exposure, times 1e6"),
    Field("cleared_nanos", LONG, "what the exposure costs at that price"),
    Field("charged_nanos", LONG, "what this notice asks of the books, by the exchange's settings; "
          "of two of one bid the second asks in vain"),
    Field("min_to_win_micros", LONG, "CPM that would have won, in the bid's currency"),
    Field("discount_micros", LONG, "CPM that the seller took off, of which the price is net"),
    # what else is said
    Field("loss", INT, "code of a loss (OpenRTB 2.6 section 5.25)"),
    Field("loss_reason", TEXT, "its name; null for an exchange's own"),
    Field("video", TEXT, "the VAST event of a video notice"),
    Field("shown", MOMENT, "when the exchange says that the ad was shown"),
    Field("order", TEXT, "hash of an order's id"),
    Field("value_micros", LONG, "what a conversion is worth, in `value_currency`"),
    Field("value_currency", TEXT, "as the shop said it"),
    Field("value_state", TEXT, "none, ok, garbage"),
    Field("linked", TEXTS, "of a link: the others who are the same person"),
    Field("linked_ways", INTS, "of each: 1 its counts are seen at the person, 2 the other way"),
    Field("unread", BYTES, "the whole body of a record that could not be read as its kind"),
)  # fmt: skip

# OpenRTB 2.6 section 5.25, but for 0, which is what stands where nothing was said; from 500 on
# exchanges have their own.
LOSS_REASONS: Final = {
    1: "internal_error", 2: "impression_expired", 3: "invalid_response",
    4: "invalid_deal", 5: "invalid_auction", 6: "invalid_advertiser_domain", 7: "missing_markup",
    8: "missing_creative_id", 9: "missing_price", 10: "missing_approval_data",
    100: "below_auction_floor", 101: "below_deal_floor", 102: "lost_to_higher_bid",
    103: "lost_to_deal", 104: "seat_blocked", 200: "creative_filtered", 201: "creative_pending",
    202: "creative_disapproved", 203: "size", 204: "format", 205: "advertiser_excluded",
    206: "app_store_id_excluded", 207: "not_secure", 208: "language", 209: "category",
    210: "attribute", 211: "ad_type", 212: "animation_too_long", 213: "not_allowed_in_deal",
    214: "bad_skadnetwork", 215: "app_bundle_excluded",
}  # fmt: skip


class Schema(msgspec.Struct, frozen=True):
    """What `schema.json` says."""

    version: int
    key: tuple[str, ...]
    join: str
    fields: tuple[dict[str, str], ...]


def schema_json() -> bytes:
    """The field list for programs."""
    fields = tuple(field._asdict() for field in FIELDS)
    return msgspec.json.format(msgspec.json.encode(Schema(VERSION, KEY, JOIN, fields))) + b"\n"
