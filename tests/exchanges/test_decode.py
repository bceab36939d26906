"""The request decoder: limits, overflows, reuse, and that it is a function of its arguments."""

import json
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from rtb.base import records
from rtb.base.errors import WireError
from rtb.base.hashing import token_hash
from rtb.base.records import Dim, Flag, Opportunity
from rtb.exchanges.settings import Exchange

BANNER = {"id": "1", "banner": {"w": 300, "h": 250}}


def body(**members: object) -> bytes:
    return json.dumps({"id": "r", "imp": [BANNER], **members}).encode()


def decoded(decode, exchange: Exchange, text: bytes) -> Opportunity:
    opportunity = Opportunity()
    decode(text, exchange, opportunity)
    return opportunity


def test_same_bytes_same_facts(decode, generic: Exchange, corpus: list[bytes]):
    """Decoding into a used opportunity leaves nothing of what was there before."""
    used = Opportunity()
    for line in corpus[::50]:
        decode(line, generic, used)
        fresh = decoded(decode, generic, line)
        assert fresh.text == used.text
        assert fresh.facts.tobytes() == used.facts.tobytes()


def test_facts_stay_where_they_are(decode, generic: Exchange):
    """Compiled code holds the address of the facts: decoding writes in place."""
    opportunity = Opportunity()
    facts, address = opportunity.facts, opportunity.address
    decode(body(), generic, opportunity)
    assert facts is opportunity.facts
    assert address == opportunity.facts.ctypes.data


def test_token_hashes(decode, generic: Exchange):
    """A token is the hash of its value in its dimension, whatever its case."""
    opportunity = decoded(decode, generic, body(site={"domain": "Example.com"}))
    head = opportunity.facts[0]["head"]
    tokens = opportunity.facts[0]["tokens"][: head["tokens_count"]]
    assert token_hash(Dim.DOMAIN, b"example.com") in tokens["hash"][tokens["dim"] == Dim.DOMAIN]
    assert token_hash(0, b"r") == head["id_hash"]


@pytest.mark.parametrize(
    ("cur", "codes"),
    [
        (None, []),
        ([], []),
        (["US"], [0]),
        (["US", "EUR"], [0x455552]),
        ([7], [0]),
        ("EUR", [0x455552]),
    ],
)
def test_currencies(decode, generic: Exchange, cur: object, codes: list[int]):
    """A list that names no currency allows none: it must not read as if nothing was said."""
    head = decoded(decode, generic, body(cur=cur)).facts[0]["head"]
    assert codes == head["cur"][: head["cur_count"]].tolist()
    assert bool(cur) is bool(head["flags"] & Flag.HAS_CUR)


def test_body_limit(decode, generic: Exchange):
    """A body over the exchange's limit is refused before it is read."""
    text = body()
    exchange = msgspec.structs.replace(generic, body_bytes_max=len(text))
    decode(text, exchange, Opportunity())
    with pytest.raises(WireError):
        decode(text + b" ", exchange, Opportunity())


def test_imps_overflow(facts: Callable[..., dict], generic: Exchange):
    """Impressions past the limit are not looked at, and that is said."""
    imps = [{**BANNER, "id": str(index)} for index in range(40)]
    read = facts({"id": "r", "imp": imps})
    assert ["IMPS_OVERFLOW"] == read["flags"]
    assert ["LIST_TRUNCATED"] == read["quirks"]
    assert 32 == len(read["imps"])
    few = facts({"id": "r", "imp": imps}, msgspec.structs.replace(generic, imps_max=3))
    assert ["0", "1", "2"] == [imp["id"] for imp in few["imps"]]


def test_block_list_overflow_is_said(facts: Callable[..., dict]):
    """A block list that does not fit makes every bid unsafe: the flag says so."""
    many = [f"{index}.com" for index in range(2049)]
    read = facts({"id": "r", "imp": [BANNER], "badv": many})
    assert ["BLOCKS_OVERFLOW"] == read["flags"]
    assert ["LIST_TRUNCATED"] == read["quirks"]
    assert "flags" not in facts({"id": "r", "imp": [BANNER], "badv": many[:2048]})


def test_a_list_of_other_scripts_costs_no_turn(facts: Callable[..., dict]):
    """To encode a host may take a millisecond: past some of them the list does not fit."""
    many = [f"bücher{index}.example" for index in range(65)]
    read = facts({"id": "r", "imp": [BANNER], "badv": ["plain.example", *many]})
    assert ["BLOCKS_OVERFLOW"] == read["flags"]
    assert "LIST_TRUNCATED" in read["quirks"]
    assert "flags" not in facts({"id": "r", "imp": [BANNER], "badv": ["p.example", *many[:64]]})


def test_keywords_do_not_cost_blocks(facts: Callable[..., dict]):
    """Too many targeting values are cut; block lists keep their own room."""
    words = [f"w{index}" for index in range(3000)]
    read = facts({"id": "r", "imp": [BANNER], "site": {"kwarray": words}, "badv": ["x.com"] * 2048})
    assert ["TOKENS_OVERFLOW"] == read["flags"]
    assert 2048 == len(read["tokens"]["BADV"])
    assert 2048 > len(read["tokens"]["KEYWORD"])


WORDS = [f"w{index}" for index in range(2_500)]


@pytest.mark.parametrize("count", [2_030, 2_047, 2_048, 2_500])
@pytest.mark.parametrize(
    "members",
    [
        lambda words: {"site": {"kwarray": words}},
        lambda words: {"site": {"cat": words}},
        lambda words: {"site": {"ext": {"data": {"k": words}}}},
        lambda words: {"app": {"content": {"genres": words}}},
        lambda words: {"dooh": {"venuetype": words}},
        lambda words: {"user": {"keywords": ",".join(words)}},
        lambda words: {"user": {"data": [{"segment": [{"id": word} for word in words]}]}},
    ],
)
def test_open_lists_leave_room(members: Callable, count: int, facts: Callable[..., dict]):
    """However long a list of words is, what an ad must fit stands: medium, size, place, country."""
    imp = {**BANNER, "tagid": "t", "banner": {"w": 300, "h": 250, "pos": 1}}
    device = {"geo": {"country": "USA", "city": "x"}, "make": "m"}
    plain = facts({"id": "r", "imp": [imp], "device": device})
    read = facts({**members(WORDS[:count]), "id": "r", "imp": [imp], "device": device})
    assert plain["imps"] == read["imps"]
    assert plain["tokens"].items() <= read["tokens"].items()
    kept = sum(map(len, read["tokens"].values()))
    kept += sum(map(len, read["imps"][0]["tokens"].values()))
    assert 2048 >= kept
    assert (count >= 2048) <= ("TOKENS_OVERFLOW" in read.get("flags", []))
    assert ("TOKENS_OVERFLOW" in read.get("flags", [])) == (kept == 2048)
    assert ("LIST_TRUNCATED" in read.get("quirks", [])) == (kept == 2048)


def test_keys_of_impressions_leave_room(facts: Callable[..., dict]):
    """Key values of a first impression cost the later ones nothing."""
    imps = [{**BANNER, "id": str(index)} for index in range(32)]
    plain = facts({"id": "r", "imp": imps})
    read = facts({"id": "r", "imp": [{**imps[0], "ext": {"data": {"k": WORDS}}}, *imps[1:]]})
    assert plain["imps"][1:] == read["imps"][1:]
    assert plain["imps"][0]["tokens"].items() <= read["imps"][0]["tokens"].items()
    assert ["TOKENS_OVERFLOW"] == read["flags"]
    assert ["LIST_TRUNCATED"] == read["quirks"]


def test_keys_of_unusable_impressions_take_no_room(facts: Callable[..., dict]):
    """What is taken back makes room again, and nothing overflowed."""
    bad = {"id": "b", "banner": {}, "bidfloor": -1, "ext": {"data": {"k": WORDS[:1_500]}}}
    good = {**BANNER, "ext": {"data": {"k": WORDS[:1_500]}}}
    read = facts({"id": "r", "imp": [bad, good]})
    assert 1_500 == len(read["imps"][1]["tokens"]["KEY_VALUE"])
    assert "flags" not in read


def test_all_that_impressions_may_say_has_room(facts: Callable[..., dict]):
    """Impressions, deals, formats and domain at their limits: only the words are cut."""
    native = {"request": json.dumps({"assets": [{"id": 1, "title": {"len": 3}}], "plcmttype": 1})}
    imps = [
        {
            "id": str(index),
            "banner": {"pos": 1, "format": [{"w": 8 * index + w, "h": 9} for w in range(1, 9)]},
            "video": {"w": 640, "h": 360, "plcmt": 1, "placement": 1},
            "audio": {},
            "native": native,
            "tagid": "t",
            "ext": {"gpid": "g"},
            "pmp": {"deals": [{"id": f"{index}-{deal}"} for deal in range(4)]},
        }
        for index in range(records.IMPS_MAX)
    ]
    request = {"id": "r", "imp": imps, "site": {"domain": "a." * 124 + "com"}}
    plain = facts(request)
    request["site"] |= {"kwarray": WORDS}  # type: ignore[operator]
    read = facts(request)
    assert "flags" not in plain
    assert plain["imps"] == read["imps"]
    assert ["TOKENS_OVERFLOW"] == read["flags"]


def test_sizes_leave_room(facts: Callable[..., dict]):
    """Sizes past the room for formats are no targets either: the medium stands."""
    formats = [{"w": 1 + index, "h": 1} for index in range(3_000)]
    read = facts({"id": "r", "imp": [{"id": "1", "banner": {"format": formats}}]})
    assert ["banner"] == read["imps"][0]["tokens"]["MEDIA"]
    assert records.FORMATS_MAX == len(read["imps"][0]["tokens"]["SIZE"])
    assert "flags" not in read


def test_deals_overflow(facts: Callable[..., dict]):
    """Deals past the limit are left out, and that is said."""
    deals = [{"id": str(index)} for index in range(130)]
    read = facts({"id": "r", "imp": [{**BANNER, "pmp": {"deals": deals}}]})
    assert ["DEALS_OVERFLOW"] == read["flags"]
    assert ["LIST_TRUNCATED"] == read["quirks"]
    assert records.DEALS_MAX == len(read["imps"][0]["deals"])


def test_formats_are_cut_at_their_capacity(facts: Callable[..., dict]):
    """Ten thousand sizes are as good as 256."""
    formats = [{"w": 1 + index, "h": 1} for index in range(1000)]
    read = facts({"id": "r", "imp": [{"id": "1", "banner": {"format": formats}}]})
    assert ["LIST_TRUNCATED"] == read["quirks"]
    assert records.FORMATS_MAX == len(read["imps"][0]["formats"])


def test_durfloors_over_capacity_spoil_the_impression(facts: Callable[..., dict]):
    """A floor that we could not keep is never ignored."""
    floors = [{"mindur": index, "bidfloor": 1} for index in range(records.DURFLOORS_MAX + 1)]
    read = facts({"id": "r", "imp": [{"id": "1", "video": {"durfloors": floors}}, {**BANNER}]})
    assert ["UNUSABLE"] == read["imps"][0]["flags"]


def test_native_assets_over_capacity_are_not_answered(facts: Callable[..., dict]):
    """A native request that does not fit might require an asset that we dropped."""
    assets = [{"id": index, "title": {"len": 5}} for index in range(records.ASSETS_MAX + 1)]
    native = {"request": json.dumps({"assets": assets})}
    read = facts({"id": "r", "imp": [{"id": "1", "native": native}]})
    assert ["UNUSABLE"] == read["flags"]


def test_ids_are_cut_at_their_capacity(facts: Callable[..., dict]):
    """The identifiers of most trust come first and stay."""
    uids = [{"id": f"e{index}"} for index in range(50)]
    user = {"id": "u", "buyeruid": "b", "eids": [{"source": "x.com", "uids": uids}]}
    read = facts({"id": "r", "imp": [BANNER], "user": user, "device": {"ifa": "i"}})
    assert ["BUYERUID", "USER", "IFA", "EID"] == [row["kind"] for row in read["ids"][:4]]
    assert records.IDS_MAX == len(read["ids"])
    assert ["LIST_TRUNCATED"] == read["quirks"]


def test_unusable_impression_leaves_nothing_but_its_id(decode, generic: Exchange):
    """Rows and tokens of an unusable impression are taken back; its neighbours stand."""
    bad = {
        "id": "bad",
        "banner": {"w": 300, "h": 250},
        "video": {"durfloors": [{"bidfloor": 1}]},
        "pmp": {"deals": [{"id": "d", "wseat": ["s"]}]},
        "tagid": "t",
        "bidfloor": -1,
    }
    text = json.dumps({"id": "r", "imp": [bad, {**BANNER, "id": "good"}]}).encode()
    opportunity = decoded(decode, generic, text)
    facts = opportunity.facts[0]
    head, (first, second) = facts["head"], facts["imps"][:2]
    assert (0, 1, 0) == (head["deals_count"], head["formats_count"], head["durfloors_count"])
    assert {-1, 1} >= set(facts["tokens"]["imp"][: head["tokens_count"]].tolist())
    assert b"bad" == opportunity.slice(int(first["id_off"]), int(first["id_len"]))
    assert (128, 0, 1 << 1) == (first["flags"], first["media"], second["media"])
    assert not head["flags"] & Flag.UNUSABLE


def test_nothing_usable_is_said(facts: Callable[..., dict]):
    """A request in which every impression is unusable says so at the top."""
    assert ["UNUSABLE"] == facts({"id": "r", "imp": [{"id": "1"}, 7, None, []]})["flags"]


def test_deal_indexes_join(decode, generic: Exchange):
    """Deals of several impressions share one list; each knows its impression."""
    imps = [
        {**BANNER, "id": str(index), "pmp": {"deals": [{"id": f"d{index}"}, {"id": "x"}]}}
        for index in range(3)
    ]
    opportunity = decoded(decode, generic, json.dumps({"id": "r", "imp": imps}).encode())
    facts = opportunity.facts[0]
    deals = facts["deals"][: facts["head"]["deals_count"]]
    assert [0, 0, 1, 1, 2, 2] == deals["imp"].tolist()
    assert [0, 2, 4] == facts["imps"]["deals_start"][:3].tolist()
    assert token_hash(Dim.DEAL, b"x") == deals["hash"][5]


def test_floats_are_exact(decode, generic: Exchange):
    """Coordinates keep every bit of the nearest float64."""
    text = (
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"device":{"geo":{"lat":48.1,"lon":-0.1234567}}}'
    )
    head = decoded(decode, generic, text).facts[0]["head"]
    assert (np.float64("48.1"), np.float64("-0.1234567")) == (head["lat"], head["lon"])


def test_wide_native_in_many_imps(facts: Callable[..., dict]):
    """Impressions share the asset list, each with its own range."""
    native = {"request": json.dumps({"assets": [{"id": 7, "title": {"len": 9}}]})}
    imps = [{"id": str(index), "native": native} for index in range(3)]
    read = facts({"id": "r", "imp": imps})
    assert [[{"id": 7, "kind": 1, "len": 9}]] * 3 == [imp["assets"] for imp in read["imps"]]
