"""The compiled decoder against the reference: the same facts, or a doubt."""

import json
import random
import re
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb._ext import wire
from rtb._ext.engine import Engine
from rtb.base.errors import InputError
from rtb.base.records import Decision, Opportunity, Privacy
from rtb.exchanges.decode import decode
from rtb.exchanges.settings import Exchange
from rtb.server.settings import CONFIGS, load_rates, load_zones, terms_of
from rtb.sim.traffic import Traffic
from tests.decide import worlds
from tests.exchanges.conftest import corpus_lines
from tests.twins.facts import facts_of

GENERIC = Exchange(name="generic", path="generic")
BANNER = {"id": "1", "banner": {"w": 300, "h": 250}}
FAST, SLOW = Opportunity(), Opportunity()

# Every member that any object of a request may have for us, and some that it may not.
KEYS = """
    id imp at tmax test allimps cattax cur bcat acat badv bapp wseat bseat wlang wlangb site app
    dooh device user regs ext source domain page bundle publisher cat sectioncat pagecat keywords
    kwarray content venuetype venuetypeid language langb genre genres contentrating channel
    network data segment name ua os osv devicetype connectiontype carrier mccmnc make model ifa
    lmt dnt geo sua country region city zip metro lat lon utcoffset platform browsers brand
    version dooh impmultiply buyeruid eids uids atype gdpr gpp us_privacy coppa gpc dsa
    dsarequired bidfloor bidfloorcur dt exp ssai clickbrowser instl secure rwdd tagid banner video
    audio native metric qty multiplier pmp gpid prebid is_rewarded_inventory rewarded type value w
    h pos format wmin wmax hmin hmax wratio hratio battr btype api expdir mimes minduration
    maxduration startdelay maxextended podseq slotinpod skipmin skipafter minbitrate maxbitrate
    poddur maxseq mincpmpersec podid protocols protocol playbackmethod delivery rqddurs durfloors
    mindur maxdur skip plcmt placement linearity boxingallowed poddedupe private_auction deals guar
    wseats wadomain request ver privacy plcmttype assets eventtrackers eventrackers event methods
    required title img len hmin other displaymanagerversion gpp_sid atts
""".split()  # noqa: SIM905
ODD_VALUES: list[object] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    7,
    300,
    10**9,
    10**10,
    2**31 - 1,
    2**31,
    -(2**31),
    10**18,
    10**30,
    0.0,
    -0.0,
    1.5,
    0.1,
    1e-7,
    1e22,
    1e23,
    123456789.123456789,
    -3.7,
    1e300,
    1e20,
    100_000,
    100_001,
    4294967596,
    5.0000001,
    1e-25,
    "",
    "0",
    "1",
    "-1",
    "1.5",
    "007",
    " 5",
    "1e2",
    "-0",
    "USD",
    "eur",
    "US",
    "USA",
    "us-ca",
    "USA-CA",
    "CA",
    "x",
    "www.Example.com",
    "http://www.a.co.uk:80/x?y#z",
    "*.foo.com",
    "a..b.c",
    "1.2.3.4",
    "//x.y",
    "u@h.com",
    "IAB1-2",
    "a,b , c,,",
    "en-US",
    "en_us",
    "-",
    "ü",
    "é-x",
    "日本",
    "\0",
    "\x7f",
    "\n a \t",
    'a"b\\c/',
    "😀",
    "10.3.1",
    "15_2",
    "USD, EUR,x,",
    "1,3",
    "IAB1-2,IAB7, ",
    "bücher.example",
    "xn--bcher-kva.example",
    "1YYN",
    " 1NYN",
    "1N-n",
    "optout",
    "éYY",
    "VIEWABILITY",
    "VIDEO/MP4; codecs=x",
    "0000-0000",
    "iOS",
    "iPhone OS",
    "Not.A/Brand",
    "Chromium",
    "310005",
    "310-005",
    "Roku/DVP-9.10",
    "x" * 600,
    "é" * 400,
    '{"assets":[{"id":1,"title":{"len":5}}]}',
    '{"native":{"assets":[{"id":"1","img":{"w":3}}]},"x":1}',
    '{"ver":1.2,"plcmttype":4,"assets":[{"id":2,"data":{"type":2,"len":"9"}}]}',
    [],
    {},
    [[]],
    [None],
    [""],
    [1, 2, 3],
    ["1", 2.0, None, 64, -1, 99],
    ["a", "b", 7],
    ["IAB1-2", "IAB7", 3, {}],
    [{}],
    [{"id": "x", "name": "y"}, {"name": "z"}],
    {"a": 1, "b": ["x", 2.5, True, None, [1]], "c": {}},
    [{"w": 300, "h": 250}, {"wratio": 1, "hratio": 2}],
    ["video/mp4", "x/y"],
    ["USD", "zz"],
    ["USD,zz", "IAB1,IAB2-3", "1,2"],
    [5, "10"],
]


def is_fast(body: bytes, exchange: Exchange = GENERIC) -> bool:
    """Whether the compiled decoder reads a request; if so its facts are the reference's.

    It decodes into a record full of rubbish: what it does not write must not matter.
    """
    FAST.facts.view(np.uint8)[:] = 0xA5
    if not wire.decode(body, 0, exchange, FAST):
        return False
    decode(body, exchange, SLOW)
    assert facts_of(SLOW) == facts_of(FAST)
    return True


def dumped(tree: object, chance: random.Random) -> bytes:
    """JSON as one of the ways in which exchanges write it."""
    kind = chance.randrange(4)
    text = json.dumps(
        tree,
        ensure_ascii=kind == 0,
        indent=2 if kind == 1 else None,
        separators=(",", ":") if kind == 2 else None,
    )
    return (text.replace("/", "\\/") if kind == 3 else text).encode()


def rearranged(tree: object, chance: random.Random, odds: float) -> object:
    """A tree with members in another order, some values odd and some keys swapped."""
    if chance.random() < odds:
        return chance.choice(ODD_VALUES)
    if isinstance(tree, list):
        return [rearranged(value, chance, odds) for value in tree]
    if not isinstance(tree, dict):
        return tree
    members = list(tree.items())
    chance.shuffle(members)
    found = {
        chance.choice(KEYS) if chance.random() < odds / 2 else key: rearranged(value, chance, odds)
        for key, value in members
    }
    if chance.random() < odds * 3:
        found[chance.choice(KEYS)] = chance.choice(ODD_VALUES)
    return found


def respelled(text: str, chance: random.Random, odds: float) -> str:
    """JSON with some of its plain keys spelled in escapes."""

    def spell(match: re.Match[str]) -> str:
        key, colon = match[1], match[2]
        if colon is None or "\\" in key or chance.random() >= odds:
            return match[0]
        wanted = chance.randrange(1 << len(key)) or 1
        spelled = [
            f"\\u{ord(char):0{4}{chance.choice('xX')}}" if wanted >> number & 1 else char
            for number, char in enumerate(key)
        ]
        return f'"{"".join(spelled)}"{colon}'

    return re.sub(r'"((?:[^"\\]|\\.)*)"(\s*:)?', spell, text)


def damaged(text: bytes, chance: random.Random) -> bytes:
    """A few bytes flipped, cut, doubled or put in."""
    body = bytearray(text)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(body) + 1)
        kind = chance.randrange(4)
        if kind == 0 and at < len(body):
            body[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del body[at : at + chance.randrange(12)]
        elif kind == 2:
            body[at:at] = body[at : at + chance.randrange(40)]
        else:
            body[at:at] = chance.choice(
                [b'"', b"{", b"[", b",", b"null", b"-1", b"1e999", b"\\", b"\\u00e9", b"\\ud800"]
            )
    return bytes(body)


def traffic(count: int) -> list[bytes]:
    """Realistic requests."""
    return list(Traffic(5, 2_000).bodies(count))


@pytest.mark.corpus
def test_corpus_alike():
    """On requests by other people both decoders agree, and 95 in 100 need no second one."""
    lines = corpus_lines("requests.jsonl.gz")
    assert sum(map(is_fast, lines)) >= 0.95 * len(lines)


@pytest.mark.corpus
def test_malformed_alike():
    """What the compiled decoder accepts of faulty requests is what the reference reads."""
    for line in corpus_lines("malformed.jsonl.gz"):
        is_fast(line)


def test_traffic_alike():
    """Realistic requests are read alike, and none of them is a doubt."""
    bodies = traffic(300)
    assert len(bodies) == sum(map(is_fast, bodies))


@pytest.mark.parametrize("seed", range(4))
def test_worlds_decide_alike(seed: int):
    """Decisions on facts of either decoder are the same bytes."""
    chance = random.Random(seed)
    engine = Engine(worlds.snapshot(seed, 60))
    terms = terms_of(
        GENERIC,
        load_rates(CONFIGS / "rates.toml"),
        load_zones(CONFIGS / "zones.toml", worlds.NOW_MS),
        1000,
        1,
    )
    for _ in range(60):
        assert is_fast(json.dumps(worlds.request(chance)).encode())
        profile = worlds.profile(chance)
        decisions = [Decision(), Decision()]
        for opportunity, decision in zip((SLOW, FAST), decisions, strict=True):
            engine.decide(opportunity, profile, terms, None, worlds.NOW_MS, decision)
        slow, fast = (decision.data[0] for decision in decisions)
        assert slow["head"] == fast["head"]
        for rows in ("bids", "drops"):
            count = int(slow["head"][f"{rows}_count"])
            assert slow[rows][:count].tolist() == fast[rows][:count].tolist()


def test_rearranged_alike():
    """Members in any order, odd values and unexpected keys are read alike or doubted."""
    chance = random.Random(3)
    trees = [json.loads(body) for body in traffic(60)]
    trees += [worlds.request(chance) for _ in range(60)]
    fast = 0
    for _ in range(800):
        tree = {**chance.choice(trees), **chance.choice(trees)}
        odds = chance.choice([0, 0.01, 0.03, 0.1])
        fast += is_fast(dumped(rearranged(tree, chance, odds), chance))
    assert fast > 250


def test_damaged_alike():
    """Requests with a few bytes amiss are read alike or doubted."""
    chance = random.Random(4)
    bodies = [*traffic(40), *(dumped(worlds.request(chance), chance) for _ in range(40))]
    for _ in range(1_500):
        is_fast(damaged(chance.choice(bodies), chance))


@pytest.mark.parametrize("body", traffic(4), ids=range(4))
def test_truncations_are_doubted(body: bytes):
    """A request cut at any byte is no request, and reading stops at its end."""
    for end in range(len(body)):
        assert not wire.decode(body[:end], 0, GENERIC, FAST)


TREES = st.recursive(
    st.sampled_from(ODD_VALUES)
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
    ),
    max_leaves=20,
)
MEMBERS = st.dictionaries(st.sampled_from(KEYS), TREES, max_size=6)


@settings(max_examples=150, deadline=None)
@given(MEMBERS, MEMBERS, MEMBERS)
def test_any_members_alike(root: dict, device: dict, imp: dict):
    """Any JSON in any member is read alike or doubted."""
    tree = {
        "id": "r",
        "device": device,
        "user": device,
        **root,
        "imp": [{"id": "1", **imp}, BANNER],
    }
    is_fast(json.dumps(tree).encode())
    is_fast(json.dumps(tree, ensure_ascii=False, indent=1).encode(errors="surrogatepass"))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 400))
def test_any_bytes_alike(put: bytes, at: int):
    """Any bytes anywhere in a request are read alike or doubted."""
    body = (
        b'{"id":"r","imp":[{"id":"1","banner":{"w":300,"h":250},"bidfloor":1.5}],"site":{"a":"b"}}'
    )
    is_fast(body[: at % len(body)] + put + body[at % len(body) :])


def _imp(text: str) -> str:
    return '{"id":"r","imp":[{"id":"1","banner":{"w":300,"h":250},' + text + "}]}"


def _device(text: str) -> str:
    return '{"id":"r","imp":[{"id":"1","banner":{}}],"device":{' + text + "}}"


@pytest.mark.parametrize("word", ["true", "false"])
@pytest.mark.parametrize(
    "members",
    [
        '"dooh":{"venuetype":%s}', '"dooh":{"venuetypeid":%s}', '"user":{"ext":{"data":%s}}',
        '"device":{"sua":{"platform":{"version":%s}}}', '"regs":{"gpp_sid":%s}',
    ],
)  # fmt: skip
def test_a_word_in_the_place_of_a_list(members: str, word: str):
    """A slot that is read twice knows where it begins, whatever stands there."""
    is_fast(f'{{"id":"r","imp":[{{"id":"1","banner":{{}}}}],{members % word}}}'.encode())
    is_fast(_imp(f'"video":{{"protocol":{word}}}').encode())


NUMBERS = """
    0 1 -1 7 9 10 999999999 1000000000 2147483647 2147483648 -2147483648 4294967296
    9223372036854775808 1e400 -1e400 1e-400 -0 -0.0 0.0 0e5 1e2 1E+2 1.5e-1 0.1
    0.30000000000000004 1.0000005 1.0000015 2.5e-6 3.5e-6 12345678.123456789012 37.774929999999998
    -122.41941550000001 100000 100000.0000001 99999.9999999 179.99999 181 91 1e22 1e23
    123456789012345678 1234567890123456789 0.000000000000000000001 111111111111111111111111111111
    00 01 1. .5 +1 1e 0x1 true false null "" "1" "-1" "1.5" "007" "1e2" " 1" "1 " "x" "-0" "1e400"
    "1." [] {} [1] "１"
""".split()  # noqa: SIM905


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_alike(number: str):
    """Every notation of a number is read alike or doubted, wherever a number may stand."""
    for key in ("bidfloor", "dt", "exp", "instl", "secure", "bidfloorcur", "tagid", "rwdd", "id2"):
        is_fast(_imp(f'"{key}":{number}').encode())
    is_fast(
        _imp(
            f'"qty":{{"multiplier":{number}}},"metric":[{{"type":"viewability","value":1}}]'
        ).encode()
    )
    is_fast(_imp(f'"metric":[{{"type":"viewability","value":{number}}}]').encode())
    is_fast(_imp(f'"video":{{"w":{number},"skip":{number},"rqddurs":[{number},5]}}').encode())
    is_fast(_imp(f'"ext":{{"data":{{"a":{number},"b":[{number}]}},"gpid":{number}}}').encode())
    is_fast(
        f'{{"id":{number},"tmax":{number},"cur":{number},"imp":[{{"id":{number},"banner":{{}}}}]}}'.encode()
    )
    is_fast(
        _device(f'"geo":{{"lat":{number},"lon":5,"utcoffset":{number}}},"os":{number}').encode()
    )
    is_fast(
        _device(
            f'"geo":{{"lat":5,"lon":{number}}},"ext":{{"dooh":{{"impmultiply":{number}}}}}'
        ).encode()
    )


TEXTS = [
    r"\ud800",
    r"\ud83d\ude00",
    r"\udc00\ud800",
    r"\ud83d",
    r"\u00e9",
    r"\u0000",
    r"\x",
    "\\",
    r"\u12",
    "\t",
    "\x01",
    "\x7f",
    "é",
    "😀",
    r"a\/b",
    r"\"",
    r"\\",
    r"\n",
    " pad ",
    "a" * 15,
    "a" * 16,
    "a" * 17,
    "a" * 31,
    "a" * 512,
    "a" * 513,
    "www.example.com",
    "WWW.Example.COM.",
    "a.b.c.example.co.uk",
    "é.com",
    "a.é",
    "10.0.0.1",
    ".",
    "..",
    "*.x.y",
    "http://u:p@h.x:8/p",
    "://x",
    "a://b://c",
    "x y.z",
    "US-CA",
    "usa-ca",
    "DEU-BE",
    "é-ca",
    "-ca",
    "us-",
    "IAB1-2",
    "IAB1-",
    "-",
    "en-US",
    "en_GB",
    "a,b",
    ",",
    "a,,b ",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 15_2 like Mac OS X) Version/15.2 Mobile Safari/604.1",
    "Mozilla/5.0 (Linux; Android 10; K) Chrome/96 Mobile Safari/537.36 EdgA/96",
    "ROKU/DVP-9.10",
    "roku",
    "android",
    "Android 1",
    "é" * 300,
    "é" * 200 + "android 7",
    "x" * 509 + "roku",
    "x" * 508 + "roku",
    "Windows Phone 10",
    "macOS",
    "PlayStation 5",
    "iPadOS",
    "KaiOS/2.5",
    "17.4.1",
    "1_2",
    "9999999999.1",
    "x1",
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:30]))
def test_texts_alike(text: str):
    """Every text is read alike or doubted, wherever a text may stand."""
    for keys in ("ua os osv make model", "language carrier ifa mccmnc", "langb osv ua"):
        members = ",".join(f'"{key}":"{text}"' for key in keys.split())
        is_fast(_device(members).encode())
    is_fast(_device(f'"ua":"{text}"').encode())
    is_fast(_device(f'"geo":{{"country":"{text}","region":"x"}}').encode())
    is_fast(_device(f'"geo":{{"country":"US","region":"{text}","city":"{text}"}}').encode())
    is_fast(
        _device(
            f'"sua":{{"browsers":[{{"brand":"{text}"}}],"platform":{{"version":["{text}","1"]}}}}'
        ).encode()
    )
    is_fast(
        _imp(
            f'"tagid":"{text}","ext":{{"data":{{"{text}":"{text}"}}}},"bidfloorcur":"{text}"'
        ).encode()
    )
    is_fast(
        _imp(
            f'"pmp":{{"deals":[{{"id":"{text}","wseat":["{text}"],"wadomain":["{text}"]}}]}}'
        ).encode()
    )
    is_fast(
        _imp(
            f'"{text}":1,"video":{{"mimes":["{text}","video/mp4;{text}"],"podid":"{text}"}}'
        ).encode()
    )
    is_fast(_imp(f'"native":{{"request":"{text}"}}').encode())
    site = f'"site":{{"domain":"{text}","page":"{text}","cat":["{text}"],"keywords":"{text}"}}'
    is_fast(f'{{"id":"{text}","imp":[{{"id":"{text}","banner":{{}}}}],{site}}}'.encode())
    lists = ",".join(f'"{key}":["{text}"]' for key in ("bcat", "badv", "bapp", "wlang", "cur"))
    user = f'"user":{{"id":"{text}","data":[{{"name":"{text}","segment":[{{"id":"{text}"}}]}}]}}'
    is_fast(f'{{"id":"r","imp":[{{"id":"1","banner":{{}}}}],{lists},{user}}}'.encode())
    is_fast(
        f'{{"id":"r","imp":[{{"id":"1","banner":{{}}}}],"regs":{{"us_privacy":"{text}"}}}}'.encode()
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{}",
        b"[]",
        b"null",
        b'"',
        b"\xef\xbb\xbf{}",
        b"[" * 131_072,
        b'{"id":' * 20_000,
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"ext":' + b"[" * 43 + b"]" * 43 + b"}",
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"ext":' + b"[" * 66 + b"]" * 66 + b"}",
        b'{"id":"r","imp":[{"id":"1","ext":{"data":' + b'{"a":' * 60 + b"1" + b"}" * 60 + b"}}]}",
        b'{"id":"r","imp":[' + b"{}," * 40_000 + b"{}]}",
        b'{"id":"r","imp":[{"id":"1","banner":{}}' + b",0" * 60_000 + b"]}",
        b'{"id":"r","imp":[{"id":"1","banner":{"format":[' + b'{"w":1,"h":1},' * 9_000 + b"{}]}}]}",
        b'{"id":"r","imp":[{"id":"1","pmp":{"deals":['
        + b'{"id":"d"},' * 9_000
        + b'{"id":"d"}]}}]}',
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"badv":[' + b'"a.com",' * 12_000 + b'"b.com"]}',
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"site":{"keywords":"' + b"a," * 60_000 + b'"}}',
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"site":{"domain":"' + b"a." * 50_000 + b'b"}}',
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"site":{"domain":"' + b"a." * 100 + b'com"}}',
        b'{"id":"r","imp":[{"id":"1","bidfloor":1.' + b"1" * 100_000 + b',"banner":{}}]}',
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"user":{"eids":['
        + b'{"source":"s","uids":[{"id":"1"},{"id":"2"}]},' * 12
        + b'{"source":"t"}]}}',
        b'{"id":"r","imp":[{"id":"1","native":{"request":"' + b"\\\\" * 50_000 + b'"}}]}',
        b'{"id":"r","imp":[{"id":"1","native":{"request":"{\\"assets\\":['
        + b'{\\"id\\":1,\\"title\\":{}},' * 200
        + b'{}]}"}}]}',
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"x":"' + b'\\"' * 60_000 + b'"}',
    ],
    ids=lambda body: f"{body[:60].decode(errors='replace')}...{len(body)}",
)
def test_bombs_alike(body: bytes):
    """Deep, wide, long and empty inputs are read alike or doubted."""
    is_fast(body)
    is_fast(body + b" \r\n\t")
    assert not is_fast(body + b"\0")


REAL_QUIRKS: list[dict] = [
    {"site": {"cat": ["IAB1-2"], "cattax": 6}, "bcat": ["150"], "cattax": 7},
    {
        "app": {
            "pagecat": ["3"],
            "cattax": "6",
            "sectioncat": ["4"],
            "content": {"cat": ["9"], "cattax": 2},
        }
    },
    {
        "user": {
            "ext": {"eids": [{"source": "a.com", "uids": [{"id": "x", "atype": "1"}]}], "gdpr": 1}
        }
    },
    {
        "regs": {
            "ext": {
                "gdpr": 1,
                "us_privacy": "1YYN",
                "gpp": "DBAA",
                "gpc": "1",
                "dsa": {"dsarequired": 3},
            }
        }
    },
    {"regs": {"gpp_sid": [-1], "ext": {"gpp_sid": [7, 8]}}},
    {"device": {"ext": {"atts": 2}}},
    {"device": {"atts": 3}},
    {"regs": [], "user": [], "device": {"ext": []}},
    {"tmax": "120", "at": 1.0, "test": True, "cur": "EUR", "wseat": "a"},
    {
        "device": {
            "geo": {
                "country": "US",
                "region": "US-CA",
                "lat": "52.5",
                "lon": 13.4,
                "utcoffset": -60,
            }
        }
    },
    {
        "device": {"geo": {"lat": 1, "lon": 2}},
        "user": {"geo": {"country": "deu", "zip": "1", "utcoffset": 60}},
    },
    {
        "device": {
            "sua": {
                "browsers": [
                    {"brand": "Not.A/Brand"},
                    {"brand": "Chromium", "version": ["1"]},
                    {"brand": "Microsoft Edge"},
                ],
                "platform": {"brand": "Windows", "version": ["10", "0"]},
                "model": "X",
            }
        }
    },
    {
        "device": {"ext": {"mccmnc": "310005", "dooh": {"impmultiply": 3.5}}},
        "dooh": {"venuetypeid": ["1"]},
    },
    {
        "dooh": {
            "id": "1",
            "venuetype": ["transit.airports"],
            "domain": "x.y",
            "content": {"genres": ["a"]},
        }
    },
    {"site": {"page": "https:\\/\\/News.Example.com/x", "keywords": ["a", "b"], "kwarray": ["c"]}},
    {
        "site": {"ext": {"data": {"a": ["x", 1, True], "b": 2.50}}},
        "user": {"ext": {"data": {"c": "d"}}},
    },
    {
        "site": {
            "content": {
                "language": "en",
                "network": {"name": "N"},
                "channel": {"id": "C"},
                "data": [{"segment": [{"id": "1"}, {"name": "2"}], "name": "p"}],
            }
        }
    },
    {
        "ext": {"schain": {"nodes": [{"asi": "x", "hp": 1, "deep": [[[[{}]]]]}]}},
        "source": None,
        "app": {},
    },
]
REAL_IMPS: list[dict] = [
    BANNER,
    {
        "id": 7,
        "banner": {"w": "728", "h": 90.0, "format": [{"wratio": 1, "hratio": 1}], "pos": 1},
        "secure": "1",
    },
    {
        "id": "v",
        "video": {
            "mimes": ["video/mp4"],
            "protocol": 2,
            "ext": {"rewarded": 1},
            "pos": 7,
            "api": 2,
            "boxingallowed": 0,
            "skip": 1,
            "placement": 1,
            "plcmt": 2,
        },
    },
    {
        "id": "a",
        "audio": {"durfloors": [{"mindur": 1, "bidfloor": 0.5}], "poddur": 60, "podid": "p"},
        "banner": {},
        "qty": {"multiplier": 2.5},
        "dt": 1700000000,
    },
    {
        "id": "n",
        "native": {
            "request": {"native": {"ver": "1.0", "assets": [{"id": 1, "title": {"len": 9}}]}}
        },
    },
    {
        "id": "o",
        "native": {
            "ver": "1.1",
            "request": {
                "assets": [{"id": 1, "data": {"type": 1}}, {"required": 0, "img": {}}],
                "eventrackers": [{"event": 1, "methods": [1]}],
            },
        },
    },
    {
        "id": "p",
        "native": {"request": '{"assets":[{"required":1,"title":{"len":5}}]}'},
        "banner": {"w": 1, "h": 1},
    },
    {"id": "w", "banner": {"w": 100_001, "h": 250}},
    {"id": "x", "banner": {}, "video": {"w": 4294967596, "h": 1}},
    {"id": "y", "banner": {"format": [{"w": 4294967596, "h": 5}]}, "bidfloor": 5.0000001},
    {"id": "q", "video": {"minduration": 9, "maxduration": 3}},
    {"id": "s", "banner": {"w": -1, "h": 5}, "pmp": {"deals": [{"id": "d"}]}},
    {"id": "1", "banner": {}},
    {
        "id": "d",
        "banner": {},
        "pmp": {
            "private_auction": 1,
            "deals": [
                {
                    "id": "x",
                    "bidfloor": "1.5",
                    "wseats": ["s"],
                    "wadomain": ["www.a.co.uk"],
                    "at": 3,
                    "guar": 1,
                    "durfloors": [{"maxdur": 5, "bidfloor": 1}],
                },
                {"id": 9, "bidfloorcur": "EUR", "wseat": []},
            ],
        },
    },
    {
        "id": "e",
        "banner": {},
        "ext": {"gpid": "/1/2", "prebid": {"is_rewarded_inventory": 1}, "data": {"k": "v"}},
    },
    {
        "id": "m",
        "banner": {},
        "metric": [{"type": "Viewability", "value": 2}, {"type": "viewability", "value": 0.5}],
    },
]


@pytest.mark.parametrize("number", range(len(REAL_QUIRKS)))
def test_frequent_quirks_are_fast(number: int):
    """Old homes, notations and orders that real traffic has take the fast path, alike."""
    assert is_fast(json.dumps({"id": "r", "imp": [BANNER], **REAL_QUIRKS[number]}).encode())
    assert is_fast(json.dumps({**REAL_QUIRKS[number], "imp": [BANNER], "id": "r"}).encode())


@pytest.mark.parametrize("imp", REAL_IMPS, ids=lambda imp: str(imp["id"]))
def test_frequent_impressions_are_fast(imp: dict):
    """Impressions of every medium, usable or not, alone and among others, take the fast path."""
    assert is_fast(json.dumps({"id": "r", "imp": [imp]}).encode())
    assert is_fast(
        json.dumps({"id": "r", "imp": [BANNER, imp, {"id": "z", "banner": {}}]}).encode()
    )


@pytest.mark.parametrize(
    ("limits", "change"),
    [
        ({"imps_max": 2}, {"imp": [{"id": str(n), "banner": {}} for n in range(4)]}),
        ({"imps_max": 2}, {"imp": [{"id": str(n), "banner": {}} for n in range(2)]}),
        (
            {"deals_max": 2},
            {"imp": [{**BANNER, "pmp": {"deals": [{"id": str(n)} for n in range(3)]}}]},
        ),
        ({"block_tokens_max": 3}, {"badv": ["a.com", "b.com", "c.com", "d.com"]}),
        ({"block_tokens_max": 3}, {"badv": ["a.com", "b.com", "c.com"]}),
        ({"target_tokens_max": 9}, {"site": {"keywords": "a,b,c,d,e,f,g,h,i,j"}}),
        ({}, {"imp": [{"id": str(n), "banner": {}} for n in range(40)]}),
        ({}, {"cur": [f"AA{chr(65 + n)}" for n in range(12)]}),
        ({}, {"imp": [{"id": "1", "banner": {}}, {"id": "1", "banner": {}}]}),
        ({}, {"imp": [{**BANNER, "pmp": {"deals": [{"id": "d"}, {"id": "d", "at": 3}]}}]}),
        ({}, {"imp": [{**BANNER, "pmp": {"deals": [{"id": "d"}, {"id": "D"}]}}]}),
        ({}, {"site": {"kwarray": [f"w{n}" for n in range(2_100)]}}),
        ({}, {"user": {"data": [{"segment": [{"id": str(n)} for n in range(2_040)]}]}}),
    ],
)
def test_limits_alike(limits: dict, change: dict):
    """At and over the limits of an exchange the decoders agree, or the compiled one doubts."""
    exchange = msgspec.structs.replace(GENERIC, **limits)
    is_fast(json.dumps({"id": "r", "imp": [BANNER], **change}).encode(), exchange)


@pytest.mark.parametrize("key", ["id", "imp", "at", "bcat", "device", "site", "cur"])
def test_duplicate_keys_are_doubted(key: str):
    """Of two equal keys the last counts: that is left to the reference."""
    tree = {
        "id": "r",
        "imp": [BANNER],
        "at": 1,
        "bcat": ["a"],
        "device": {},
        "site": {},
        "cur": ["USD"],
    }
    body = json.dumps(tree).encode()
    assert is_fast(body)
    assert not is_fast(body[:-1] + b',"%b":%b}' % (key.encode(), json.dumps(tree[key]).encode()))


@settings(max_examples=100, deadline=None)
@given(MEMBERS, MEMBERS, st.randoms(use_true_random=False), st.sampled_from([0.1, 1.0]))
def test_escaped_keys_alike(root: dict, imp: dict, chance: random.Random, odds: float):
    """A request whose keys are spelled with escapes has the facts of one without, for both."""
    tree = {"id": "r", "user": root, "device": imp, **root, "imp": [{"id": "1", **imp}, BANNER]}
    body = json.dumps(tree)
    escaped = respelled(body, chance, odds).encode()
    is_fast(escaped)
    try:
        decode(body.encode(), GENERIC, FAST)
    except InputError as error:
        with pytest.raises(type(error)):
            decode(escaped, GENERIC, SLOW)
        return
    decode(escaped, GENERIC, SLOW)
    assert facts_of(FAST) == facts_of(SLOW)


def test_escaped_keys_of_requests_alike():
    """The same for whole requests, their native ones in strings and plain."""
    chance = random.Random(6)
    trees = [json.loads(body) for body in traffic(40)]
    trees += [worlds.request(chance) for _ in range(60)]
    doubts = 0
    for tree in trees:
        for imp in tree["imp"]:
            request = imp.get("native", {}).get("request")
            if isinstance(request, str):
                imp["native"]["request"] = respelled(request, chance, 0.3)
        body = json.dumps(tree)
        escaped = respelled(body, chance, 0.05).encode()
        doubts += not is_fast(escaped)
        decode(body.encode(), GENERIC, FAST)
        decode(escaped, GENERIC, SLOW)
        assert facts_of(FAST) == facts_of(SLOW)
    assert doubts > 50


@pytest.mark.parametrize(
    ("member", "privacy"),
    [
        (r'"re\u0067s":{"coppa":1}', Privacy.COPPA),
        (r'"regs":{"\u0063oppa":1}', Privacy.COPPA),
        (r'"regs":{"\u0065xt":{"g\u0064pr":1}}', Privacy.GDPR),
        (r'"d\u0065vice":{"lm\u0074":1}', Privacy.LMT),
        (r'"regs":{"coppa":0},"re\u0067s":{"coppa":1}', Privacy.COPPA),
    ],
)
def test_a_no_below_an_escaped_key_is_heard(member: str, privacy: Privacy):
    """The compiled decoder leaves it to the reference, which reads the key as what it is."""
    body = f'{{"id":"r","imp":[{json.dumps(BANNER)}],{member}}}'.encode()
    assert not is_fast(body)
    decode(body, GENERIC, SLOW)
    assert privacy == SLOW.facts["head"]["privacy"][0]


@pytest.mark.parametrize("escape", ["", r"\n", r"\u00e9", "é"])
def test_strings_of_every_length(escape: str):
    """Values and keys of any length, also at the very end, are read alike."""
    for length in range(1, 150):
        text = "x" * length + escape
        is_fast(
            f'{{"id":"r","imp":[{{"id":"1","banner":{{}}}}],"user":{{"id":"{text}"}}}}'.encode()
        )
        is_fast(f'{{"imp":[{{"id":"1","banner":{{}}}}],"{text}":1,"id":"{text}"}}'.encode())
        assert not is_fast(f'{{"imp":[{{"id":"1","banner":{{}}}}],"id":"{text}'.encode())
        assert not is_fast(f'{{"imp":[{{"id":"1","banner":{{}}}}],"id":"r","{text}'.encode())


def test_body_behind_a_head():
    """Slices count from the first byte of the data, wherever the body begins."""
    head = b"POST /x HTTP/1.1\r\n\r\n"
    for body in traffic(5):
        assert wire.decode(head + body, len(head), GENERIC, FAST)
        decode(body, GENERIC, SLOW)
        assert facts_of(SLOW) == facts_of(FAST)
        assert head + body == FAST.text


@pytest.mark.parametrize("start", [-1, 10_000, 2**40])
def test_start_outside_is_doubted(start: int):
    """A body that begins nowhere is no body."""
    assert not wire.decode(json.dumps({"id": "r", "imp": [BANNER]}).encode(), start, GENERIC, FAST)


def test_body_limit_is_doubted():
    """A body over the limit of its exchange is left to the reference, which refuses it."""
    body = json.dumps({"id": "r", "imp": [BANNER]}).encode()
    exchange = msgspec.structs.replace(GENERIC, body_bytes_max=len(body) - 1)
    assert not wire.decode(body, 0, exchange, FAST)
    with pytest.raises(InputError):
        decode(body, exchange, SLOW)


@pytest.mark.parametrize(
    "call",
    [
        lambda: wire.decode("{}", 0, GENERIC, FAST),  # type: ignore[arg-type]
        lambda: wire.decode(None, 0, GENERIC, FAST),  # type: ignore[arg-type]
    ],
)
def test_only_bytes_are_read(call: Callable[[], object]):
    """Anything but bytes is a mistake of ours."""
    with pytest.raises(TypeError):
        call()
