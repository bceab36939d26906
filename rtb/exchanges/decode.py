"""THE REFERENCE: one OpenRTB 2.x request as facts. The compiled decoder is measured against this.

`decode` is pure: bytes and settings in, `Opportunity` overwritten. How single values are read and
which deviations are counted stands in `rtb.openrtb.reading`; impressions in `impressions`; site,
app, device, user in `contexts`. This file owns the request itself.

It refuses (nothing may be read from the opportunity then):

    WireError      not one UTF-8 JSON value; nested over 64 levels; larger than body_bytes_max
    OpenRTBError   root is no object; `openrtb` at the root without `imp` (3.0; path `$.openrtb`);
                   id missing or no id (see `reading.is_id`); imp missing, no list or empty

    field               read from, and what it means
    id, id_hash         id, echoed as raw text; a number is its text. token_hash(0, raw text)
    at                  at when over 0, as received; 0 = absent
    tmax_ms             tmax; 0 or less: -1, no time at all; 0 = absent; saturates
    test                set by anything but 0, also by what cannot be read
    allimps             set by a number other than 0
    cur                 cur: the entries that are three letters, the first CURRENCIES_MAX;
                        "USD,EUR" is two of them.
                        HAS_CUR: the list has entries. When none of them is a currency, cur is
                        one 0, which has no rate: then nothing can be bid
    cattax              cattax when over 0, else 1: of bcat and acat
    bcat, acat          "cattax:code"
    badv                `hosts.blocked_host`: lower case, no scheme, port, path, leading "www.";
                        "bücher.example" is "xn--bcher-kva.example"
    bapp, wseat, bseat  as they are
    wlang, wlangb       both lists: primary subtag ("en" of "en-US")
                        An entry of all these but wseat and bseat may be several between commas
    blocks              a list that has an entry (not null, not "") is present, readable or not:
                        an allow list of nothing that we understand allows nothing
    channel             of site, app, dooh: the first that is an object and not empty, else the
                        first that is an object. Two of them: SITE_AND_APP
    dsarequired         regs.ext.dsa.dsarequired
    pubrender           regs.ext.dsa.pubrender + 1; more than PUBRENDER_MAX counts as that
    ids                 in this order user.buyeruid, user.id, device.ifa (not when only zeros and
                        dashes), user.eids and behind them user.ext.eids; at most IDS_MAX. An id
                        that is no id is left out
    privacy             see `privacy`: every home counts, and what cannot be read counts as a no

Tokens stand in the order in which they were read, which no reader may rely on: two decoders agree
when their multisets of (dim, imp, hash) do. Token slices hold the value for people to read. Lists
without an end (`sheet.OPEN`) get the room that other targets leave; when TOKENS_OVERFLOW is set,
which of their values were kept is not specified. `text` holds the slices one after the other; a
decoder may also point into the body, so compare slices, not offsets. The compiled one does, and
leaves the slice of a token empty whose value does not stand there as such ("300x250").
"""

from typing import Final

from rtb.base.errors import OpenRTBError, WireError
from rtb.base.hashing import token_hash
from rtb.base.money import currency_code
from rtb.base.records import CURRENCIES_MAX, IDS_MAX, Dim, Flag, IdKind, Opportunity, Quirk
from rtb.exchanges.contexts import language_of, read_context
from rtb.exchanges.impressions import read_imps
from rtb.exchanges.privacy import PUBRENDER_MAX, read_privacy
from rtb.exchanges.settings import Exchange
from rtb.exchanges.sheet import Row, Sheet
from rtb.openrtb.lists import CATEGORY_TAXONOMY_DEFAULT
from rtb.openrtb.reading import Json, Object, Reader, is_id, parse

NO_TIME: Final = -1  # head.tmax_ms of a request that leaves no time


def decode(body: bytes, exchange: Exchange, opportunity: Opportunity) -> None:
    """Overwrites `opportunity` with the facts of one bid request.

    Raises: WireError, OpenRTBError.
    """
    if len(body) > exchange.body_bytes_max:
        raise WireError(f"body over {exchange.body_bytes_max} bytes")
    root = _root(parse(body))
    reader = Reader()
    sheet = Sheet(reader, exchange)
    _read_request(reader, sheet, root)
    _read_blocks(reader, sheet, root)
    device, user = reader.object(root, "device"), reader.object(root, "user")
    _read_ids(reader, sheet, device, user)
    read_context(reader, sheet, root)
    dooh_ext = reader.object(reader.object(device, "ext"), "dooh")
    read_imps(reader, sheet, _imps(root), dooh_ext)
    sheet.write(opportunity)


def _root(tree: Json) -> Object:
    if not isinstance(tree, dict):
        raise OpenRTBError("a bid request is an object")
    if "openrtb" in tree and "imp" not in tree:
        raise OpenRTBError("OpenRTB 3.0 is not spoken here", "$.openrtb")
    return tree


def _imps(root: Object) -> list[Json]:
    imps = root.get("imp")
    if not isinstance(imps, list) or not imps:
        raise OpenRTBError("a bid request has a list of impressions", "$.imp")
    return imps


def _read_request(reader: Reader, sheet: Sheet, root: Object) -> None:
    raw = reader.raw(root, "id")
    if not is_id(raw):
        raise OpenRTBError("a bid request has an id of 1 to 512 plain characters", "$.id")
    off, length = sheet.slice(raw)
    regs = reader.object(root, "regs")
    dsa = reader.object(reader.object(regs, "ext"), "dsa")
    sheet.head |= {
        "id_off": off,
        "id_len": length,
        "id_hash": token_hash(0, raw.encode()),
        "at": reader.count(root, "at"),
        "tmax_ms": _tmax_ms(reader, root),
        "cattax": reader.count(root, "cattax") or CATEGORY_TAXONOMY_DEFAULT,
        "dsarequired": reader.count(dsa, "dsarequired"),
        "pubrender": min(reader.count(dsa, "pubrender", -1), PUBRENDER_MAX) + 1,
        "privacy": int(read_privacy(reader, root)),
    }
    if reader.strict_flag(root, "test"):
        sheet.flags |= Flag.TEST
    if reader.flag(root, "allimps"):
        sheet.flags |= Flag.ALLIMPS
    _read_currencies(reader, sheet, root)


def _tmax_ms(reader: Reader, root: Object) -> int:
    value = root.get("tmax")
    if reader.number_of(value) is None:
        return 0
    tmax_ms = reader.integer_of(value)
    return tmax_ms if tmax_ms > 0 else NO_TIME


def _read_currencies(reader: Reader, sheet: Sheet, root: Object) -> None:
    codes: list[int] = []
    items = reader.items(root, "cur")
    for name in (part for item in items for part in reader.parts(reader.raw_of(item))):
        try:
            codes.append(currency_code(name))
        except ValueError:
            reader.note(Quirk.BAD_VALUE_IGNORED)
    if items:
        sheet.flags |= Flag.HAS_CUR
    if len(codes) > CURRENCIES_MAX:
        reader.note(Quirk.LIST_TRUNCATED)
    # An empty list would read as "nothing was said", and our default currency is not asked for.
    kept = codes[:CURRENCIES_MAX] or [0] * bool(items)
    sheet.head |= {"cur": kept, "cur_count": len(kept)}


def _read_blocks(reader: Reader, sheet: Sheet, root: Object) -> None:
    cattax = sheet.head["cattax"]
    for key, dim in _BLOCKS:
        if reader.items(root, key):
            sheet.blocks |= 1 << (dim - Dim.BCAT)
        for text in _entries(reader, root, key):
            if dim in (Dim.BCAT, Dim.ACAT):
                value = f"{cattax}:{text}"
            elif dim == Dim.BADV:
                sheet.block_host(dim, text)
                continue
            else:
                value = language_of(text) if dim == Dim.WLANG else text
            if value:
                sheet.block(dim, value)


def _entries(reader: Reader, root: Object, key: str) -> list[str]:
    texts = reader.texts(root, key)
    if key in ("wseat", "bseat"):  # names of any letters, commas too
        return texts
    return [part for text in texts for part in reader.parts(text)]


def _read_ids(reader: Reader, sheet: Sheet, device: Object, user: Object) -> None:
    ids: list[Row] = []
    for owner, key, kind in (
        (user, "buyeruid", IdKind.BUYERUID),
        (user, "id", IdKind.USER),
        (device, "ifa", IdKind.IFA),
    ):
        raw = reader.raw(owner, key)
        if kind == IdKind.IFA and not raw.strip("0-"):
            continue
        ids += _identifier(reader, sheet, kind, raw)
    ext = reader.object(user, "ext")
    if reader.has(ext, "eids"):
        reader.note(Quirk.OLD_HOME)
    for eid in reader.objects(user, "eids") + reader.objects(ext, "eids"):
        source = reader.raw(eid, "source")
        for uid in reader.objects(eid, "uids"):
            if is_id(source):
                atype = min(reader.count(uid, "atype"), 65_535)
                ids += _identifier(reader, sheet, IdKind.EID, reader.raw(uid, "id"), source, atype)
    sheet.add_rows(sheet.ids, ids, IDS_MAX)


def _identifier(
    reader: Reader, sheet: Sheet, kind: IdKind, raw: str, source: str = "", atype: int = 0
) -> list[Row]:
    if not is_id(raw):
        if raw:
            reader.note(Quirk.BAD_VALUE_IGNORED)
        return []
    off, length = sheet.slice(raw)
    source_off, source_len = sheet.slice(source)
    row: Row = {
        "off": off,
        "len": length,
        "source_off": source_off,
        "source_len": source_len,
        "kind": int(kind),
        "atype": atype,
    }
    return [row]


_BLOCKS: Final = (
    ("bcat", Dim.BCAT),
    ("acat", Dim.ACAT),
    ("badv", Dim.BADV),
    ("bapp", Dim.BAPP),
    ("wseat", Dim.WSEAT),
    ("bseat", Dim.BSEAT),
    ("wlang", Dim.WLANG),
    ("wlangb", Dim.WLANG),
)
