"""Every trap of the OpenRTB digest that a request or an answer can spring, by name.

A case is a request and what must be read from it; `...` in an expected dict means: absent.
"""

import json
from collections.abc import Callable

import pytest

from rtb.base.errors import OpenRTBError
from rtb.base.records import Opportunity
from rtb.exchanges.settings import Exchange

BANNER = {"id": "1", "banner": {"w": 300, "h": 250}}
VIDEO = {"id": "1", "video": {"mimes": ["video/mp4"], "w": 640, "h": 360}}
NATIVE_ASSETS = [{"id": 1, "title": {"len": 30}}]


def request(imp: object = BANNER, **members: object) -> dict:
    return {"id": "r", "imp": [imp], **members}


def banner(**members: object) -> dict:
    return {"id": "1", "banner": {**members}}


def video(**members: object) -> dict:
    return {"id": "1", "video": {"mimes": ["video/mp4"], **members}}


def pmp(**deal: object) -> dict:
    return {**BANNER, "pmp": {"deals": [{"id": "d", **deal}]}}


def imp(**expected: object) -> dict:
    return {"imps": [expected]}


TRAPS: dict[str, tuple[dict, dict]] = {
    # -- 0. transport and general rules
    "null-is-absent": (request(tmax=None, at=None, site=None), {"tmax_ms": ..., "channel": ...}),
    "empty-string-is-absent": (
        request({**BANNER, "bidfloorcur": "", "tagid": ""}, cur=""),
        imp(floor_cur="USD", tokens={"TAG": ...}) | {"cur": ..., "flags": ...},
    ),
    "unknown-fields-are-tolerated": (
        request({**BANNER, "bogus": {"a": [1]}}, novel=7),
        imp(media=["BANNER"]) | {"quirks": ...},
    ),
    "unknown-enum-values-are-tolerated": (
        request({"id": "1", "banner": {"w": 1, "h": 1, "api": [3, 999], "btype": [77]}}, at=501),
        imp(banner_api=[3], banner_btype=...) | {"at": 501},
    ),
    # -- 1. bid request
    "at-absent-means-second-price": (request(), {"at": ...}),  # Terms.at_default then says 2
    "at-500-is-the-exchanges-own": (request(at=500), {"at": 500}),
    "at-3-fixed-price-on-the-request": (request(at=3), {"at": 3}),
    "cur-absent-is-not-any": (request(), {"cur": ..., "flags": ...}),
    "cur-given": (request(cur=["EUR", "USD"]), {"cur": ["EUR", "USD"], "flags": ["HAS_CUR"]}),
    "cur-unknown-allows-nothing": (request(cur=["US"]), {"cur": ..., "flags": ["HAS_CUR"]}),
    "test-1-bids-but-never-counts": (request(test=1), {"flags": ["TEST"]}),
    "tmax-as-string": (request(tmax="120"), {"tmax_ms": 120, "quirks": ["NUMBER_AS_STRING"]}),
    "tmax-as-fraction": (request(tmax=933.333), {"tmax_ms": 933, "quirks": ["FLOAT_AS_INT"]}),
    "tmax-zero-leaves-no-time": (request(tmax=0), {"tmax_ms": -1}),
    "tmax-negative-leaves-no-time": (request(tmax=-5), {"tmax_ms": -1}),
    "tmax-huge-saturates": (request(tmax=10**12), {"tmax_ms": 2**31 - 1}),
    "tmax-unreadable-is-absent": (request(tmax="soon"), {"tmax_ms": ...}),
    "wseat-empty-allows-all": (request(wseat=[]), {"blocks": ...}),
    "wseat-unreadable-allows-nobody": (request(wseat=[{}]), {"blocks": ["WSEAT"]}),
    "wseat-and-bseat": (
        request(wseat=["a"], bseat=[7]),
        {"blocks": ["WSEAT", "BSEAT"], "tokens": {"WSEAT": ["a"], "BSEAT": ["7"]}},
    ),
    "wlang-bcp47": (
        request(wlang=["en-US"], wlangb=["pt-BR"]),
        {"tokens": {"WLANG": ["en", "pt"]}},
    ),
    "acat-allows": (request(acat=["IAB1"]), {"blocks": ["ACAT"], "tokens": {"ACAT": ["1:IAB1"]}}),
    "cattax-default-1": (request(bcat=["IAB7"]), {"cattax": 1, "tokens": {"BCAT": ["1:IAB7"]}}),
    "cattax-names-the-taxonomy": (request(bcat=["150"], cattax=6), {"tokens": {"BCAT": ["6:150"]}}),
    "badv-as-url": (
        request(badv=["HTTPS://www.Ford.com/x", "*.gm.com"]),
        {"tokens": {"BADV": ["ford.com", "gm.com"]}},
    ),
    "bapp-numeric-store-id": (request(bapp=[553834731]), {"tokens": {"BAPP": ["553834731"]}}),
    "bcat-between-commas": (
        request(bcat=["IAB1, IAB18-5,,", "IAB7"]),
        {"tokens": {"BCAT": ["1:IAB1", "1:IAB18-5", "1:IAB7"]}, "quirks": ["OTHER_NOTATION"]},
    ),
    "block-lists-as-text": (
        request(
            bcat="IAB1,IAB2",
            acat="IAB3,IAB4",
            badv="a.example,https://www.b.example/",
            bapp="com.a , 77",
            wlang="en-US,fr",
        ),
        {
            "tokens": {
                "BCAT": ["1:IAB1", "1:IAB2"],
                "ACAT": ["1:IAB3", "1:IAB4"],
                "BADV": ["a.example", "b.example"],
                "BAPP": ["77", "com.a"],
                "WLANG": ["en", "fr"],
            },
            "quirks": ["SCALAR_AS_LIST", "OTHER_NOTATION"],
        },
    ),
    "seats-keep-their-commas": (
        request(wseat=["a,b"], bseat=["c,d"]),
        {"tokens": {"WSEAT": ["a,b"], "BSEAT": ["c,d"]}, "quirks": ...},
    ),
    "bcat-of-commas-alone": (
        request(bcat=[" , "]),
        {"blocks": ["BCAT"], "tokens": {"BCAT": ...}},
    ),
    "battr-as-text": (
        request(banner(w=1, h=1, battr="1, 3", btype=["4,1"])),
        imp(banner_battr=[1, 3], banner_btype=[1, 4]),
    ),
    "protocol-as-text": (request(video(protocol="2, 3")), imp(video={"protocols": [2, 3]})),
    "cur-as-text": (
        request(cur="USD, EUR,"),
        {
            "cur": ["USD", "EUR"],
            "flags": ["HAS_CUR"],
            "quirks": ["SCALAR_AS_LIST", "OTHER_NOTATION"],
        },
    ),
    "cur-between-commas": (
        request(cur=["USD,zz", "GBP"]),
        {"cur": ["USD", "GBP"], "quirks": ["BAD_VALUE_IGNORED", "OTHER_NOTATION"]},
    ),
    # -- regs and privacy
    "gdpr-absent-is-unknown-not-0": (request(regs={}), {"privacy": ...}),
    "gdpr-old-home": (
        request(regs={"ext": {"gdpr": 1}}),
        {"privacy": ["GDPR"], "quirks": ["OLD_HOME"]},
    ),
    "gdpr-unreadable-counts-as-yes": (request(regs={"gdpr": "yes"}), {"privacy": ["GDPR"]}),
    "gpc-is-a-string": (request(regs={"ext": {"gpc": "1"}}), {"privacy": ["GPC"]}),
    "gpc-as-number": (request(regs={"ext": {"gpc": 1}}), {"privacy": ["GPC"]}),
    "gpp-any-string": (request(regs={"gpp": "DBAA"}), {"privacy": ["GPP"]}),
    "gpp-old-home": (request(regs={"ext": {"gpp": "DBAA"}}), {"privacy": ["GPP"]}),
    "us-privacy-third-character": (
        request(regs={"us_privacy": "1YYN"}),
        {"privacy": ["US_PRIVACY"]},
    ),
    "us-privacy-escaped-in-json": (
        b'{"id":"r","imp":[{"id":"1","banner":{"w":1,"h":1}}],"regs":{"us_privacy":"1Y\\u0059N"}}',
        {"privacy": ["US_PRIVACY"]},
    ),
    "us-privacy-no-opt-out": (request(regs={"us_privacy": "1YNY"}), {"privacy": ...}),
    "us-privacy-does-not-apply": (request(regs={"ext": {"us_privacy": "1---"}}), {"privacy": ...}),
    "us-privacy-in-small-letters": (request(regs={"us_privacy": "1nnn"}), {"privacy": ...}),
    "us-privacy-with-spaces-around": (
        request(regs={"us_privacy": " 1NNN "}, user={"ext": {"us_privacy": "  "}}),
        {"privacy": ...},
    ),
    "us-privacy-opt-out-behind-a-space": (
        request(regs={"ext": {"us_privacy": " 1NYN"}}),
        {"privacy": ["US_PRIVACY"], "quirks": ["OLD_HOME"]},
    ),
    "us-privacy-with-an-unknown-letter": (
        request(regs={"us_privacy": "1YXN"}),
        {"privacy": ["US_PRIVACY"], "quirks": ["BAD_VALUE_IGNORED"]},
    ),
    "us-privacy-of-another-version": (
        request(regs={"us_privacy": "2YNN"}),
        {"privacy": ["US_PRIVACY"]},
    ),
    "us-privacy-cut-off": (request(regs={"us_privacy": "1YX-"}), {"privacy": ["US_PRIVACY"]}),
    "us-privacy-too-long": (request(regs={"us_privacy": "1YNNN"}), {"privacy": ["US_PRIVACY"]}),
    "us-privacy-in-words": (
        request(regs={"ext": {"us_privacy": "optout"}}),
        {"privacy": ["US_PRIVACY"]},
    ),
    "both-homes-the-stricter-counts": (
        request(regs={"gdpr": 0, "ext": {"gdpr": 1}}),
        {"privacy": ["GDPR"]},
    ),
    "lmt-dnt-coppa": (
        request(regs={"coppa": 1}, device={"lmt": 1, "dnt": 1}),
        {"privacy": ["COPPA", "LMT", "DNT"]},
    ),
    "regs-as-text-count-as-a-no": (request(regs='{"gdpr":1}'), {"privacy": ["GDPR"]}),
    "regs-as-list-count-as-a-no": (request(regs=[{"gdpr": 1}]), {"privacy": ["GDPR"]}),
    "regs-as-truth-count-as-a-no": (
        request(regs=True),
        {"privacy": ["GDPR"], "quirks": ["WRONG_TYPE_IGNORED"]},
    ),
    "regs-ext-as-text-counts-as-a-no": (request(regs={"ext": "gdpr=1"}), {"privacy": ["GDPR"]}),
    "regs-null-says-nothing": (request(regs=None), {"privacy": ...}),
    "regs-ext-null-says-nothing": (request(regs={"ext": None}), {"privacy": ...}),
    "device-as-text-counts-as-a-no": (request(device="x"), {"privacy": ["LMT"]}),
    "device-ext-as-list-counts-as-a-no": (request(device={"ext": [1]}), {"privacy": ["LMT"]}),
    "user-as-text-counts-as-a-no": (request(user="x"), {"privacy": ["GDPR"]}),
    "user-ext-as-text-counts-as-a-no": (request(user={"ext": "x"}), {"privacy": ["GDPR"]}),
    "user-and-device-null-say-nothing": (request(user=None, device=None), {"privacy": ...}),
    "gpp-sid-without-its-string": (request(regs={"gpp_sid": [2]}), {"privacy": ["GPP"]}),
    "gpp-sid-of-a-state": (request(regs={"gpp_sid": [-1, 8]}), {"privacy": ["GPP"]}),
    "gpp-sid-old-home": (
        request(regs={"ext": {"gpp_sid": ["7"]}}),
        {"privacy": ["GPP"], "quirks": ["NUMBER_AS_STRING", "OLD_HOME"]},
    ),
    "gpp-sid-as-scalar": (
        request(regs={"gpp_sid": 2}),
        {"privacy": ["GPP"], "quirks": ["SCALAR_AS_LIST"]},
    ),
    "gpp-sid-as-text": (request(regs={"gpp_sid": "2,6"}), {"privacy": ["GPP"]}),
    "gpp-sid-unreadable-counts-as-yes": (request(regs={"gpp_sid": [{}]}), {"privacy": ["GPP"]}),
    "gpp-sid-does-not-apply": (request(regs={"gpp_sid": [-1, 0]}), {"privacy": ...}),
    "gpp-sid-empty": (request(regs={"gpp_sid": [None]}), {"privacy": ...}),
    "atts-restricted": (request(device={"ext": {"atts": 1}}), {"privacy": ["LMT"], "quirks": ...}),
    "atts-denied": (request(device={"atts": 2}), {"privacy": ["LMT"]}),
    "atts-denied-as-text": (request(device={"ext": {"atts": "2"}}), {"privacy": ["LMT"]}),
    "atts-unreadable-counts-as-yes": (
        request(device={"ext": {"atts": "denied"}}),
        {"privacy": ["LMT"]},
    ),
    "atts-not-asked-or-authorised": (
        request(device={"atts": 0, "ext": {"atts": 3}}),
        {"privacy": ...},
    ),
    "dsa-in-regs-ext": (request(regs={"ext": {"dsa": {"dsarequired": 2}}}), {"dsarequired": 2}),
    "dsa-render": (
        request(regs={"ext": {"dsa": {"dsarequired": 2, "pubrender": 0}}}),
        {"dsarequired": 2, "pubrender": 1},
    ),
    "no-keeps-the-values-of-the-user": (
        request(
            regs={"gdpr": 1},
            user={"ext": {"data": {"loyal": "gold"}}},
            site={"ext": {"data": {"section": "news"}}},
        ),
        {"tokens": {"KEY_VALUE": ["section=news"]}},
    ),
    "no-behind-the-values-of-the-user": (
        {"user": {"ext": {"data": {"loyal": "gold"}}}, **request(device={"lmt": 1})},
        {"tokens": {"KEY_VALUE": ...}},
    ),
    "values-of-the-user-without-a-no": (
        request(user={"ext": {"data": {"loyal": "gold", "n": [1, True]}}}),
        {"tokens": {"KEY_VALUE": ["loyal=gold", "n=1", "n=true"]}, "quirks": ...},
    ),
    "no-keeps-the-home": (
        request(
            device={"dnt": 1},
            user={
                "geo": {
                    "country": "FRA",
                    "region": "IDF",
                    "city": "Paris",
                    "zip": "75001",
                    "metro": "7",
                    "utcoffset": 60,
                }
            },
        ),
        {
            "tokens": dict.fromkeys(("COUNTRY", "REGION", "CITY", "POSTCODE", "METRO"), ...),
            "flags": ...,
        },
    ),
    "no-keeps-the-door": (
        request(
            regs={"coppa": 1},
            device={
                "geo": {
                    "country": "USA",
                    "region": "CA",
                    "city": "Los Angeles",
                    "zip": "90049",
                    "metro": "803",
                    "lat": 34.05,
                    "lon": -118.25,
                    "utcoffset": -480,
                }
            },
        ),
        {
            "tokens": {
                "COUNTRY": ["USA"],
                "REGION": ["USA-CA"],
                "CITY": ["Los Angeles"],
                "METRO": ["803"],
                "POSTCODE": ...,
            },
            "lat": ...,
            "lon": ...,
            "flags": ["HAS_UTCOFFSET"],
        },
    ),
    # -- old homes
    "eids-empty-in-the-new-home": (
        request(user={"eids": [], "ext": {"eids": [{"source": "s", "uids": [{"id": "old"}]}]}}),
        {"ids": [{"id": "old", "source": "s", "kind": "EID"}], "quirks": ["OLD_HOME"]},
    ),
    "eids-in-both-homes": (
        request(
            user={
                "eids": [{"source": "s", "uids": [{"id": "new"}]}],
                "ext": {"eids": [{"source": "t", "uids": [{"id": "old"}]}]},
            }
        ),
        {"ids": [{"id": "new"}, {"id": "old"}], "quirks": ["OLD_HOME"]},
    ),
    "eids-in-both-homes-the-old-one-first": (
        request(
            user={
                "ext": {"eids": [{"source": "t", "uids": [{"id": "old"}]}]},
                "eids": [{"source": "s", "uids": [{"id": "new"}]}],
            }
        ),
        {"ids": [{"id": "new"}, {"id": "old"}]},
    ),
    "protocols-empty-hide-no-protocol": (
        request(video(protocols=[None], protocol=2)),
        imp(video={"protocols": [2]}) | {"quirks": ["OLD_HOME", "SCALAR_AS_LIST"]},
    ),
    "protocols-as-nothing-hide-no-protocol": (
        request(video(protocol=2, protocols={})),
        imp(video={"protocols": [2]}),
    ),
    "rwdd-empty-hides-no-reward": (
        request({**video(ext={"rewarded": 1}), "rwdd": []}),
        imp(flags=["REWARDED"]),
    ),
    "qty-empty-hides-no-multiplier": (
        request(
            {**BANNER, "qty": {"multiplier": {}}}, device={"ext": {"dooh": {"impmultiply": 3}}}
        ),
        imp(multiplier=3.0, flags=...),
    ),
    "mccmnc-empty-hides-none": (
        request(device={"mccmnc": [], "ext": {"mccmnc": "310005"}}),
        {"tokens": {"CARRIER": ["310-005"]}},
    ),
    "venuetype-empty-hides-no-venue": (
        request(dooh={"venuetype": [], "venuetypeid": "30101"}),
        {"tokens": {"VENUE": ["30101"]}, "quirks": ["OLD_HOME", "SCALAR_AS_LIST"]},
    ),
    "deal-wseat-empty-hides-no-wseats": (
        request(pmp(wseat=[], wseats=["45"])),
        imp(deals=[{"has_wseat": 1, "tokens": {"DEAL_WSEAT": ["45"]}}]),
    ),
    # -- 2. imp
    "rwdd-old-home-video-ext": (
        request(video(ext={"rewarded": 1})),
        imp(flags=["REWARDED"], tokens={"REWARDED": ["1"]}),
    ),
    "rwdd-old-home-prebid": (
        request({**BANNER, "ext": {"prebid": {"is_rewarded_inventory": 1}}}),
        imp(flags=["REWARDED"]),
    ),
    **{
        f"secure-unreadable-{value}": (
            request({**BANNER, "secure": value}),
            imp(flags=["SECURE"]) | {"quirks": ["WRONG_TYPE_IGNORED"]},
        )
        for value in ("true", "yes", [1], [], {})
    },
    **{
        f"private-auction-unreadable-{value}": (
            request({**BANNER, "pmp": {"private_auction": value}}),
            imp(flags=["PRIVATE_AUCTION"]) | {"quirks": ["WRONG_TYPE_IGNORED"]},
        )
        for value in ("true", [1], {})
    },
    **{
        f"test-unreadable-{value}": (
            request(test=value),
            {"flags": ["TEST"], "quirks": ["WRONG_TYPE_IGNORED"]},
        )
        for value in ("true", "yes", [1], {})
    },
    **{
        f"flags-off-{value}": (
            request({**BANNER, "secure": value, "pmp": {"private_auction": value}}, test=value),
            imp(flags=...) | {"flags": ...},
        )
        for value in (None, 0, "0", False, "")
    },
    "secure-absent-is-unknown": (request(), imp(flags=...)),
    "bidfloorcur-default-usd": (request({**BANNER, "bidfloor": 1}), imp(floor_cur="USD")),
    "bidfloorcur-unknown-code-is-kept": (
        request({**BANNER, "bidfloor": 1, "bidfloorcur": "XTS"}),
        imp(floor_cur="XTS", flags=...),
    ),
    "bidfloorcur-garbage-is-never-ignored": (
        request({**BANNER, "bidfloor": 1, "bidfloorcur": "test"}),
        imp(flags=["UNUSABLE"]),
    ),
    "bidfloor-negative": (request({**BANNER, "bidfloor": -1.5}), imp(flags=["UNUSABLE"])),
    "bidfloor-as-string": (request({**BANNER, "bidfloor": "0.5"}), imp(floor_micros=500_000)),
    "bidfloor-is-rounded-up": (
        request({**BANNER, "bidfloor": 5.0000001}),
        imp(floor_micros=5_000_001),
    ),
    "bidfloor-of-tenths-is-exact": (
        request({**BANNER, "bidfloor": 0.1}),
        imp(floor_micros=100_000),
    ),
    "bidfloor-with-zeros-is-exact": (
        request({**BANNER, "bidfloor": "1.10000000000"}),
        imp(floor_micros=1_100_000),
    ),
    "bidfloor-tiny-is-not-none": (request({**BANNER, "bidfloor": 1e-30}), imp(floor_micros=1)),
    "bidfloor-unreadable": (request({**BANNER, "bidfloor": "x"}), imp(flags=["UNUSABLE"])),
    "dt-in-seconds": (
        request({**BANNER, "dt": 1_700_000_000}),
        imp(dt_ms=1.7e12) | {"quirks": ["OTHER_NOTATION"]},
    ),
    "dt-in-milliseconds": (request({**BANNER, "dt": 1.7e12}), imp(dt_ms=1.7e12)),
    "qty-multiplier-below-1": (
        request({**BANNER, "qty": {"multiplier": 0.25}}),
        imp(multiplier=0.25),
    ),
    "qty-multiplier-zero": (request({**BANNER, "qty": {"multiplier": 0}}), imp(flags=["UNUSABLE"])),
    "dooh-impmultiply-old-home": (
        request(device={"ext": {"dooh": {"impmultiply": 14.2}}}),
        imp(multiplier=14.2) | {"quirks": ["OLD_HOME"]},
    ),
    "instl-full-screen": (
        request({**BANNER, "instl": 1}),
        imp(flags=["INTERSTITIAL"], tokens={"INTERSTITIAL": ["1"]}),
    ),
    "gpid-beside-tagid": (
        request({**BANNER, "tagid": "t", "ext": {"gpid": "/1/home"}}),
        imp(tokens={"TAG": ["/1/home", "t"]}),
    ),
    "metric-viewability": (
        request(
            {
                **BANNER,
                "metric": [{"type": "click", "value": 1}, {"type": "viewability", "value": 0.6}],
            }
        ),
        imp(viewability=0.6, flags=["HAS_VIEWABILITY"]),
    ),
    "duplicate-imp-id-first-wins": (
        {"id": "r", "imp": [BANNER, BANNER]},
        {
            "imps": [{"id": "1", "flags": ...}, {"id": "1", "flags": ["UNUSABLE"]}],
            "quirks": ["DUPLICATE_IMP_ID"],
        },
    ),
    # -- banner
    "format-and-w-h-are-a-union": (
        request(banner(w=300, h=250, format=[{"w": 728, "h": 90}])),
        imp(
            formats=[{"w": 728, "h": 90}, {"w": 300, "h": 250}],
            tokens={"SIZE": ["300x250", "728x90"]},
        ),
    ),
    "format-repeats-w-h": (
        request(banner(w=300, h=250, format=[{"w": 300, "h": 250}])),
        imp(formats=[{"w": 300, "h": 250}]),
    ),
    "flex-format-has-no-size": (
        request(banner(format=[{"wratio": 16, "hratio": 9, "wmin": 320}])),
        imp(formats=[{"wmin": 320, "wratio": 16, "hratio": 9}], tokens={"SIZE": ["flex"]}),
    ),
    "flex-beside-a-size": (
        request(banner(w=300, h=250, format=[{"wratio": 4, "hratio": 3}] * 2)),
        imp(tokens={"SIZE": ["300x250", "flex"]}),
    ),
    "banner-without-a-size-takes-any": (request(banner()), imp(tokens={"SIZE": ["flex"]})),
    "banner-ranges-still-arrive": (
        request(banner(w=300, h=250, wmax=400, hmax=300, wmin=200, hmin=100)),
        imp(formats=[{"w": 300, "h": 250}]) | {"quirks": ...},
    ),
    "banner-range": (
        request(banner(wmax=400, hmax=300, wmin=200, hmin=100)),
        imp(
            formats=[{"wmin": 200, "wmax": 400, "hmin": 100, "hmax": 300}],
            tokens={"SIZE": ["flex"]},
        ),
    ),
    "banner-range-open": (
        request(banner(w=0, h=0, wmax=728, format=[{"w": 30, "h": 0}])),
        imp(formats=[{"wmax": 728}]) | {"quirks": ["BAD_VALUE_IGNORED"]},
    ),
    "banner-range-of-nothing": (
        request(banner(wmax=100, wmin=200)),
        imp(formats=..., tokens={"SIZE": ["flex"]}) | {"quirks": ["BAD_VALUE_IGNORED"]},
    ),
    "banner-range-impossible": (request(banner(wmin=-1)), imp(flags=["UNUSABLE"])),
    "banner-sizes-as-strings": (
        request(banner(w="728", h="90")),
        imp(formats=[{"w": 728, "h": 90}]) | {"quirks": ["NUMBER_AS_STRING"]},
    ),
    "banner-size-zero-is-unknown": (
        request(banner(w=0, h=0, format=[{"w": 30, "h": 0}])),
        imp(formats=..., media=["BANNER"]) | {"quirks": ["BAD_VALUE_IGNORED"]},
    ),
    "banner-size-negative": (request(banner(w=-1, h=250)), imp(flags=["UNUSABLE"])),
    "banner-size-impossible": (request(banner(w=1e20, h=250)), imp(flags=["UNUSABLE"])),
    "banner-size-past-32-bits": (request(banner(w=4294967596, h=250)), imp(flags=["UNUSABLE"])),
    "format-impossible": (
        request(banner(w=300, h=250, format=[{"w": 1e20, "h": 1e30}])),
        imp(flags=["UNUSABLE"]) | {"quirks": ["FLOAT_AS_INT", "BAD_VALUE_IGNORED"]},
    ),
    "format-wmin-impossible": (
        request(banner(format=[{"wratio": 1, "hratio": 1, "wmin": 100_001}])),
        imp(flags=["UNUSABLE"]),
    ),
    "banner-size-of-a-wall": (
        request(banner(w=100_000, h=100_000)),
        imp(formats=[{"w": 100_000, "h": 100_000}], flags=...),
    ),
    "video-size-impossible": (request(video(w=640, h=100_001)), imp(flags=["UNUSABLE"])),
    "banner-api-unlisted-is-unsupported": (request(banner(w=1, h=1)), imp(banner_api=...)),
    "banner-mimes-only-unknown-is-not-all": (
        request(banner(w=1, h=1, mimes=["application/x-shockwave-flash"])),
        imp(banner_mimes=[63]),
    ),
    "banner-mimes-other-spellings": (
        request(banner(w=1, h=1, mimes=["IMAGE/JPG", "application/x-javascript; charset=utf-8"])),
        imp(banner_mimes=[1, 9]),
    ),
    "pos-0-is-said": (request(banner(w=1, h=1, pos=0)), imp(pos=..., tokens={"POSITION": ["0"]})),
    "pos-absent-is-unknown": (request(), imp(pos=-1, tokens={"POSITION": ...})),
    # -- video and audio
    "rqddurs-exact-seconds": (request(video(rqddurs=[15, 30])), imp(video={"rqddurs_s": [15, 30]})),
    "rqddurs-without-any-second": (request(video(rqddurs=[0, "x"])), imp(flags=["UNUSABLE"])),
    "minduration-over-maxduration": (
        request(video(minduration=30, maxduration=15)),
        imp(flags=["UNUSABLE"]),
    ),
    "startdelay-generic-mid-roll": (request(video(startdelay=-1)), imp(video={"startdelay_s": -1})),
    "skip-absent-is-unknown": (request(video()), imp(video={"skip": -1})),
    "skip-0-is-said": (request(video(skip=0)), imp(video={"skip": ...})),
    "maxextended-unlimited": (request(video(maxextended=-1)), imp(video={"maxextended_s": -1})),
    "boxing-is-allowed-by-default": (request(video()), imp(video={"boxing": 1})),
    "plcmt-and-old-placement": (
        request(video(plcmt=2, placement=4)),
        imp(tokens={"PLACEMENT": ["placement:4", "plcmt:2"]}),
    ),
    "protocol-old-scalar": (
        request(video(protocol=2)),
        imp(video={"protocols": [2]}) | {"quirks": ["OLD_HOME", "SCALAR_AS_LIST"]},
    ),
    "protocols-only-unknown-is-not-all": (
        request(video(protocols=[99])),
        imp(video={"protocols": [0]}),
    ),
    "mincpmpersec": (request(video(mincpmpersec=0.5)), imp(video={"mincpmpersec_micros": 500_000})),
    "durfloors-open-ends": (
        request(video(durfloors=[{"mindur": 15, "bidfloor": 5}, {"maxdur": 10, "bidfloor": 2}])),
        imp(
            video={
                "durfloors": [
                    {"floor_micros": 5_000_000, "mindur_s": 15},
                    {"floor_micros": 2_000_000, "maxdur_s": 10},
                ]
            }
        ),
    ),
    "mincpmpersec-is-rounded-up": (
        request(video(mincpmpersec=0.0000011)),
        imp(video={"mincpmpersec_micros": 2}),
    ),
    "durfloors-are-rounded-up": (
        request(video(durfloors=[{"bidfloor": 2.0000001}])),
        imp(video={"durfloors": [{"floor_micros": 2_000_001}]}),
    ),
    "durfloors-negative": (request(video(durfloors=[{"bidfloor": -1}])), imp(flags=["UNUSABLE"])),
    "dynamic-pod": (
        request(video(poddur=60, maxseq=4, podid="p1", podseq=-1, slotinpod=2)),
        imp(video={"poddur_s": 60, "maxseq": 4, "podseq": -1, "slotinpod": 2}),
    ),
    "structured-pod-shares-podid": (
        {"id": "r", "imp": [video(podid="p"), {**video(podid="p"), "id": "2"}]},
        {"imps": [{"media": ["VIDEO"]}, {"media": ["VIDEO"]}]},
    ),
    "audio-has-no-size": (
        request({"id": "1", "audio": {"mimes": ["audio/mp4"], "feed": 3}}),
        imp(media=["AUDIO"], audio={"mimes": [32]}, tokens={"MEDIA": ["audio"], "SIZE": ...}),
    ),
    "several-media-in-one-imp": (
        request({**BANNER, **VIDEO}),
        imp(media=["BANNER", "VIDEO"], tokens={"MEDIA": ["banner", "video"]}),
    ),
    # -- native
    "native-1.0-is-wrapped": (
        request(
            {"id": "1", "native": {"request": json.dumps({"native": {"assets": NATIVE_ASSETS}})}}
        ),
        imp(media=["NATIVE"], native_ver=10, flags=["NATIVE_WRAPPED"]),
    ),
    "native-1.1-is-bare": (
        request(
            {"id": "1", "native": {"request": json.dumps({"ver": "1.1", "assets": NATIVE_ASSETS})}}
        ),
        imp(native_ver=11, flags=...),
    ),
    "native-as-object": (
        request({"id": "1", "native": {"request": {"ver": "1.2", "assets": NATIVE_ASSETS}}}),
        imp(native_ver=12, assets=[{"id": 1, "kind": 1, "len": 30}])
        | {"quirks": ["NATIVE_OBJECT"]},
    ),
    "native-eventrackers-misspelled": (
        request(
            {
                "id": "1",
                "native": {
                    "request": json.dumps(
                        {"assets": NATIVE_ASSETS, "eventrackers": [{"event": 1, "methods": [1]}]}
                    )
                },
            }
        ),
        imp(native_events=[1]) | {"quirks": ["OTHER_NOTATION"]},
    ),
    "native-without-assets": (
        request({"id": "1", "native": {"request": "{}"}}),
        imp(flags=["UNUSABLE"]) | {"flags": ["UNUSABLE"]},
    ),
    "native-plcmttype": (
        request(
            {
                "id": "1",
                "native": {"request": json.dumps({"assets": NATIVE_ASSETS, "plcmttype": 4})},
            }
        ),
        imp(native_plcmttype=4, tokens={"PLACEMENT": ["native:4"]}),
    ),
    # -- 4. deals
    "deal-currency-is-never-inherited": (
        request({**pmp(bidfloor=2), "bidfloorcur": "EUR"}),
        imp(floor_cur="EUR", deals=[{"id": "d", "floor_cur": "USD", "floor_micros": 2_000_000}]),
    ),
    "deal-at-3-is-a-fixed-price": (request(pmp(at=3, bidfloor=4)), imp(deals=[{"at": 3}])),
    "deal-wseat-and-wadomain": (
        request(pmp(wseat=["s"], wadomain=["https://www.ford.com"])),
        imp(
            deals=[
                {
                    "has_wseat": 1,
                    "has_wadomain": 1,
                    "tokens": {"DEAL_WSEAT": ["s"], "DEAL_WADOMAIN": ["ford.com"]},
                }
            ]
        ),
    ),
    "deal-wseats-misspelled": (
        request(pmp(wseats=["45"])),
        imp(deals=[{"has_wseat": 1}]) | {"quirks": ["OLD_HOME"]},
    ),
    "deal-guaranteed": (request(pmp(guar=1)), imp(deals=[{"guaranteed": 1}])),
    "deal-floor-impossible-leaves-it-out": (
        request(pmp(bidfloor=-1)),
        imp(deals=..., media=["BANNER"], tokens={"DEAL": ...}),
    ),
    "deal-floor-is-rounded-up": (
        request(pmp(bidfloor=4.0000009)),
        imp(deals=[{"floor_micros": 4_000_001}]),
    ),
    "deal-listed-twice-first-counts": (
        request(
            {
                **BANNER,
                "pmp": {"deals": [{"id": "d", "bidfloor": 3}, {"id": "d", "bidfloor": 1}]},
            }
        ),
        imp(deals=[{"id": "d", "floor_micros": 3_000_000}], tokens={"DEAL": ["d"]}, flags=...)
        | {"quirks": ["BAD_VALUE_IGNORED"]},
    ),
    "deals-in-other-capitals-are-two": (
        request({**BANNER, "pmp": {"deals": [{"id": "d"}, {"id": "D"}]}}),
        imp(deals=[{"id": "d"}, {"id": "D"}]) | {"quirks": ...},
    ),
    "deal-in-two-imps-is-two": (
        {"id": "r", "imp": [pmp(), {**pmp(), "id": "2"}]},
        {"imps": [{"deals": [{"id": "d"}]}, {"deals": [{"id": "d"}]}], "quirks": ...},
    ),
    "deal-without-id": (
        request({**BANNER, "pmp": {"private_auction": 1, "deals": [{"id": ""}]}}),
        imp(deals=..., flags=["PRIVATE_AUCTION"]),
    ),
    "private-auction": (
        request({**BANNER, "pmp": {"private_auction": 1, "deals": [{"id": "a"}, {"id": "b"}]}}),
        imp(flags=["PRIVATE_AUCTION"], tokens={"DEAL": ["a", "b"]}),
    ),
    # -- 5. context
    "site-and-app": (
        request(site={"id": "s"}, app={"id": "a"}),
        {"channel": 1, "quirks": ["SITE_AND_APP"]},
    ),
    "site-empty-and-app": (request(site={}, app={"bundle": "com.x"}), {"channel": 2}),
    "page-names-the-domain": (
        request(site={"page": "https://News.example.com/x"}),
        {"tokens": {"DOMAIN": ["example.com", "news.example.com"]}},
    ),
    "domain-with-www": (
        request(site={"domain": "www.example.com", "page": "https://other.com"}),
        {"tokens": {"DOMAIN": ["example.com", "www.example.com"]}},
    ),
    "bundle-as-number": (
        request(app={"bundle": 553834731}),
        {"tokens": {"BUNDLE": ["553834731"]}, "quirks": ["STRING_AS_NUMBER"]},
    ),
    "category-implies-tier-1": (
        request(site={"cat": ["IAB1-2"], "sectioncat": ["IAB3"]}),
        {"tokens": {"PAGE_CATEGORY": ["1:IAB1", "1:IAB1-2", "1:IAB3"]}},
    ),
    "category-in-its-own-taxonomy": (
        request(site={"cat": ["150"], "cattax": 6, "content": {"cat": ["IAB9-1"]}}),
        {"tokens": {"PAGE_CATEGORY": ["1:IAB9", "1:IAB9-1", "6:150"]}},
    ),
    "keywords-string-or-kwarray": (
        request(site={"keywords": " a, b ,,", "kwarray": ["c", "d e"]}),
        {"tokens": {"KEYWORD": ["a", "b", "c", "d e"]}},
    ),
    "keywords-as-list": (
        request(app={"content": {"keywords": ["a", "b"]}}),
        {"tokens": {"KEYWORD": ["a", "b"]}, "quirks": ["OTHER_NOTATION"]},
    ),
    "dooh-venuetypeid-alias": (
        request(dooh={"venuetypeid": 30101, "venuetax": 1}),
        {"channel": 3, "tokens": {"VENUE": ["30101"]}},
    ),
    "dooh-venuetype-list": (
        request(dooh={"venuetype": ["transit.airports"], "id": "1"}),
        {"tokens": {"VENUE": ["transit.airports"]}, "quirks": ...},
    ),
    "country-alpha-2": (
        request(device={"geo": {"country": "us", "region": "ca"}}),
        {"tokens": {"COUNTRY": ["USA"], "REGION": ["USA-ca"]}, "quirks": ["OTHER_NOTATION"]},
    ),
    "region-with-prefix": (
        request(device={"geo": {"country": "USA", "region": "US-CA"}}),
        {"tokens": {"REGION": ["USA-CA"]}},
    ),
    "device-geo-before-user-geo": (
        request(device={"geo": {"country": "FRA"}}, user={"geo": {"country": "USA"}}),
        {"tokens": {"COUNTRY": ["FRA"]}},
    ),
    "user-geo-when-device-has-none": (
        request(
            device={"geo": {"lat": 1.5, "lon": 2}}, user={"geo": {"country": "USA", "zip": "1"}}
        ),
        {"tokens": {"COUNTRY": ["USA"], "POSTCODE": ["1"]}, "lat": 1.5, "flags": ["HAS_GEO"]},
    ),
    "null-island": (request(device={"geo": {"lat": 0, "lon": 0}}), {"flags": ..., "lat": ...}),
    "utcoffset-in-minutes": (
        request(device={"geo": {"utcoffset": -480}}),
        {"utcoffset_min": -480, "flags": ["HAS_UTCOFFSET"]},
    ),
    "utcoffset-in-the-old-hundreds": (
        request(device={"geo": {"utcoffset": -5000}}),
        {"utcoffset_min": ..., "flags": ...},
    ),
    "ifa-all-zero-is-no-id": (
        request(device={"ifa": "00000000-0000-0000-0000-000000000000"}),
        {"ids": ..., "quirks": ...},
    ),
    "eids-old-home": (
        request(user={"ext": {"eids": [{"source": "x.com", "uids": [{"id": "u", "atype": "1"}]}]}}),
        {
            "ids": [{"kind": "EID", "id": "u", "source": "x.com", "atype": 1}],
            "quirks": ["NUMBER_AS_STRING", "OLD_HOME"],
        },
    ),
    "sua-before-ua": (
        request(
            device={
                "ua": "Mozilla/5.0 (Windows NT 10.0) Chrome/1 Safari/1",
                "sua": {
                    "browsers": [{"brand": "Not.A/Brand"}, {"brand": "Microsoft Edge"}],
                    "platform": {"brand": "macOS", "version": ["14", "5"]},
                },
            }
        ),
        {"tokens": {"BROWSER": ["edge"], "OS": ["macos"]}, "os_version": 14_005_000},
    ),
    "mccmnc-without-dash": (
        request(device={"mccmnc": "310005", "carrier": "AT&T"}),
        {"tokens": {"CARRIER": ["310-005", "AT&T"]}},
    ),
    "language-or-langb": (request(device={"langb": "pt-BR"}), {"tokens": {"LANGUAGE": ["pt"]}}),
    "devicetype-as-float": (
        request(device={"devicetype": 4.0}),
        {"tokens": {"DEVICE_TYPE": ["4"]}},
    ),
    "segments-with-and-without-provider": (
        request(user={"data": [{"id": "7", "segment": [{"id": "s1"}, {"name": "s2"}]}]}),
        {"tokens": {"DATA_SEGMENT": ["7:s1", "7:s2", ":s1", ":s2"]}},
    ),
    "key-values-of-every-level": (
        request(
            {**BANNER, "ext": {"data": {"slot": ["a", 1, True], "deep": {"x": 1}}}},
            site={"ext": {"data": {"section": "news"}}},
            user={"ext": {"data": {"tier": 2.50}}},
        ),
        {"tokens": {"KEY_VALUE": ["section=news", "tier=2.5"]}}
        | imp(tokens={"KEY_VALUE": ["slot=1", "slot=a", "slot=true"]}),
    ),
}


def differences(expected: object, actual: object, path: str = "$") -> list[str]:
    """What of `expected` does not hold in `actual`; `...` means absent."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return [
            fault
            for key, value in expected.items()
            for fault in differences(value, actual.get(key, ...), f"{path}.{key}")
        ]
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        pairs = zip(expected, actual, strict=True)
        return [
            fault
            for index, (left, right) in enumerate(pairs)
            for fault in differences(left, right, f"{path}[{index}]")
        ]
    return [] if expected == actual else [f"{path}: expected {expected!r}, got {actual!r}"]


@pytest.mark.parametrize("name", TRAPS)
def test_trap(name: str, facts: Callable[..., dict]):
    """A trap of the digest is read as the digest says."""
    body, expected = TRAPS[name]
    actual = {"tokens": {}, **facts(body)}
    for row in actual["imps"]:
        row.setdefault("tokens", {})
    assert [] == differences(expected, actual)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"openrtb": {"ver": "3.0", "request": {"id": "1"}}}, "$.openrtb"),
        ([], "$"),
        ("x", "$"),
        ({}, "$.id"),
        ({"imp": [BANNER]}, "$.id"),
        ({"id": "", "imp": [BANNER]}, "$.id"),
        ({"id": {}, "imp": [BANNER]}, "$.id"),
        ({"id": "a\r\nb", "imp": [BANNER]}, "$.id"),
        ({"id": "x" * 513, "imp": [BANNER]}, "$.id"),
        ({"id": "r"}, "$.imp"),
        ({"id": "r", "imp": []}, "$.imp"),
        ({"id": "r", "imp": {"0": BANNER}}, "$.imp"),
        ({"id": "r", "imp": "x"}, "$.imp"),
    ],
)
def test_no_bid_request(body: object, path: str, facts: Callable[..., dict]):
    """What is no bid request is refused with the place that says so."""
    with pytest.raises(OpenRTBError) as caught:
        facts(body)
    assert path == caught.value.path


def test_ids_are_echoed_byte_for_byte(decode, generic: Exchange):
    """Escapes in ids stay as they came, so that the echo is the exchange's own text."""
    opportunity = Opportunity()
    decode(rb'{"id":"a\/\u00e9","imp":[{"id":"\"1\"","banner":{}}]}', generic, opportunity)
    head, imp_row = opportunity.facts[0]["head"], opportunity.facts[0]["imps"][0]
    assert rb"a\/\u00e9" == opportunity.slice(int(head["id_off"]), int(head["id_len"]))
    assert rb"\"1\"" == opportunity.slice(int(imp_row["id_off"]), int(imp_row["id_len"]))


@pytest.mark.parametrize(("first", "second"), [(r"\u0031", "1"), ("1", r"\u0031"), ("/", r"\/")])
def test_imp_ids_in_two_spellings_are_one(first: str, second: str, facts: Callable[..., dict]):
    """An id that stands there with escapes is the same id: only the first of both is bid on."""
    imps = ",".join(f'{{"id":"{text}","banner":{{}}}}' for text in (first, second))
    read = facts(f'{{"id":"r","imp":[{imps}]}}'.encode())
    assert [None, ["UNUSABLE"]] == [row.get("flags") for row in read["imps"]]
    assert ["DUPLICATE_IMP_ID"] == read["quirks"]


def test_deal_ids_in_two_spellings_are_one(facts: Callable[..., dict]):
    """A deal id that stands there with escapes is the same deal: only the first counts."""
    deals = rb'[{"id":"a/1","bidfloor":3},{"id":"a\/1"}]'
    read = facts(b'{"id":"r","imp":[{"id":"1","banner":{},"pmp":{"deals":%b}}]}' % deals)
    assert ["a/1"] == [deal["id"] for deal in read["imps"][0]["deals"]]


def test_numeric_ids_are_their_text(facts: Callable[..., dict]):
    """A number where an id belongs is its own text."""
    read = facts(b'{"id":12345678901234567890,"imp":[{"id":1.50,"banner":{}}]}')
    assert "12345678901234567890" == read["id"]
    assert "1.50" == read["imps"][0]["id"]
    assert ["STRING_AS_NUMBER"] == read["quirks"]
