"""Native ads (Native 1.0 to 1.2): what a request asks for, and which of an ad's assets answer it.

A request arrives as a JSON string (the spec), as a plain object (frequent), bare (1.1 and later) or
wrapped in {"native": ...} (1.0); the answer is wrapped as the request was. It is read thus:

    version   request.ver, else the ver beside it, else 1.0 when wrapped, else 1.2
    events    event trackers that take an image; the spec's own samples misspell the key as
              `eventrackers`
    asset     id is required; exactly one of title, img, video, data, else nothing matches it
    sizes     below 0 make the asset one that nothing matches

`match_assets` is the rule that picks an ad's assets; the engine checks the same rule in C.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from rtb.base.errors import WireError
from rtb.base.records import MIME_UNKNOWN_BIT, MIMES, Quirk
from rtb.openrtb.lists import TRACK_BY_IMAGE, AssetKind, NativeImage
from rtb.openrtb.reading import INT_MAX, Json, Object, Reader, ascii_lower, parse, plain

_VERSIONS: Final = {"1": 10, "1.0": 10, "1.1": 11, "1.2": 12}
_NO_ID: Final = -1
# A protocol list that names only what we do not know: bit 0 is no protocol, so nothing fits.
PROTOCOL_UNKNOWN_MASK: Final = 1

Row = Mapping[str, int]


class NativeRequest(msgspec.Struct, frozen=True):
    """What a native placement asks for. `assets` are values of `records.ASSET`, by field name."""

    version: int  # 10, 11, 12
    wrapped: bool
    privacy: bool
    plcmttype: int
    events: int  # mask of events that may be tracked by an image
    assets: list[dict[str, int]]


def read_native(reader: Reader, native: Object) -> NativeRequest | None:
    """The request inside an `imp.native` object; None when there is none that can be answered.

    That is: no readable `request`, no assets, or a required asset without an id.
    """
    request = _request_of(reader, native.get("request"))
    if request is None:
        return None
    inner = request.get("native")
    wrapped = isinstance(inner, dict)
    if isinstance(inner, dict):
        request = inner
    assets = [read_asset(reader, asset) for asset in reader.objects(request, "assets")]
    answerable = [asset for asset in assets if asset["id"] != _NO_ID]
    if len(answerable) < len(assets):
        reader.note(Quirk.BAD_VALUE_IGNORED)
    if not answerable or any(asset["required"] for asset in assets if asset["id"] == _NO_ID):
        return None
    return NativeRequest(
        version=_version(reader, request, native, wrapped),
        wrapped=wrapped,
        privacy=reader.flag(request, "privacy"),
        plcmttype=reader.count(request, "plcmttype"),
        events=_image_events(reader, request),
        assets=answerable,
    )


def read_asset(reader: Reader, asset: Object) -> dict[str, int]:
    """One requested asset as values of `records.ASSET`; `id` is -1 when it has none."""
    row = {
        "id": reader.count(asset, "id", _NO_ID),
        "required": int(reader.flag(asset, "required")),
        "kind": int(AssetKind.UNKNOWN),
    }
    if row["id"] == INT_MAX:  # saturated: the answer could not name it
        row["id"] = _NO_ID
    kinds = [kind for kind in _MEMBERS if isinstance(asset.get(kind), dict)]
    if len(kinds) != 1:
        reader.note(Quirk.BAD_VALUE_IGNORED)
        return row
    row |= _MEMBERS[kinds[0]](reader, reader.object(asset, kinds[0]))
    if any(row.get(key, 0) < 0 for key in _SIZES):
        reader.note(Quirk.BAD_VALUE_IGNORED)
        row["kind"] = AssetKind.UNKNOWN
    return row


def match_assets(requested: Sequence[Row], offered: Sequence[Row]) -> list[int] | None:
    """Which of an ad's assets answers each requested one: indexes into `offered`, -1 for left out.

    For each requested asset in order the first offered one that `asset_fits`; the same ad asset
    may answer several requested ones. A required asset that none fits: None, no bid. Of several of
    one id the first alone is answered, so a required one that asks for something else is lacking.
    """
    chosen: list[int] = []
    first: dict[int, Row] = {}
    for request in requested:
        index = next((i for i, ad in enumerate(offered) if asset_fits(request, ad)), -1)
        named = first.setdefault(request["id"], request)
        is_lacking = index < 0 or {**named, "required": 1} != {**request, "required": 1}
        if is_lacking and request["required"]:
            return None
        chosen.append(index if named is request else -1)
    return chosen


def asset_fits(request: Row, ad: Row) -> bool:
    """Whether an ad's asset (`snapshot.ASSET`) may answer a requested one (`records.ASSET`).

    title  at most `len` characters, 0 = any number
    data   the same type, and `len` as for a title
    img    the same type, where 0 on either side stands for 3 (main); w and h exact where given
           without wmin, hmin; else at least wmin, hmin; a type of `mimes`
    video  minduration <= duration <= maxduration (0 = open); a type of `mimes`, one of `protocols`
    """
    kind = request["kind"]
    if kind != ad["kind"]:
        return False
    if kind == AssetKind.TITLE:
        return _is_short(request, ad)
    if kind == AssetKind.DATA:
        return request["type"] == ad["type"] and _is_short(request, ad)
    if kind == AssetKind.IMG:
        return _image_fits(request, ad)
    if kind == AssetKind.VIDEO:
        return _video_fits(request, ad)
    return False


def mime_mask(reader: Reader, owner: Object, key: str = "mimes") -> int:
    """A list of MIME types as the mask of `records.MIMES`; 0 when absent.

    Parameters ("; codecs=...") are cut. A list that names only unknown types sets
    MIME_UNKNOWN_BIT: it must not read as "all".
    """
    items = reader.items(owner, key)
    mask = 0
    for item in items:
        name = ascii_lower(plain(reader.raw_of(item)).partition(";")[0].strip(" \t\r\n"))
        if name in MIMES:
            mask |= 1 << MIMES[name]
    return mask or (1 << MIME_UNKNOWN_BIT if items else 0)


def _request_of(reader: Reader, value: Json) -> Object | None:
    if isinstance(value, dict):
        reader.note(Quirk.NATIVE_OBJECT)
        return value
    if not isinstance(value, str) or not value:
        if value not in (None, ""):
            reader.note(Quirk.WRONG_TYPE_IGNORED)
        return None
    try:
        request = parse(plain(value).encode())
    except WireError:
        request = None
    if not isinstance(request, dict):
        reader.note(Quirk.WRONG_TYPE_IGNORED)
        return None
    return request


def _version(reader: Reader, request: Object, native: Object, wrapped: bool) -> int:
    default = 10 if wrapped else 12
    for owner in (request, native):
        text = reader.text(owner, "ver")
        if text:
            return _VERSIONS.get(text, default)
    return default


def _image_events(reader: Reader, request: Object) -> int:
    key = "eventtrackers"
    if not reader.has(request, key) and reader.has(request, "eventrackers"):
        reader.note(Quirk.OTHER_NOTATION)
        key = "eventrackers"
    events = 0
    for tracker in reader.objects(request, key):
        event = reader.integer(tracker, "event")
        if 0 < event < 32 and reader.mask(tracker, "methods", 32) & 1 << TRACK_BY_IMAGE:
            events |= 1 << event
    return events


_SIZES: Final = ("len", "w", "h", "wmin", "hmin", "minduration_s", "maxduration_s")


def _title(reader: Reader, title: Object) -> dict[str, int]:
    return {"kind": AssetKind.TITLE, "len": reader.integer(title, "len")}


def _img(reader: Reader, img: Object) -> dict[str, int]:
    sizes = {key: reader.integer(img, key) for key in ("w", "h", "wmin", "hmin")}
    return {
        "kind": AssetKind.IMG,
        "type": _type(reader, img),
        "mimes": mime_mask(reader, img),
        **sizes,
    }


def _video(reader: Reader, video: Object) -> dict[str, int]:
    return {
        "kind": AssetKind.VIDEO,
        "minduration_s": reader.integer(video, "minduration"),
        "maxduration_s": reader.integer(video, "maxduration"),
        "protocols": reader.mask(video, "protocols", 32, PROTOCOL_UNKNOWN_MASK),
        "mimes": mime_mask(reader, video),
    }


def _data(reader: Reader, data: Object) -> dict[str, int]:
    return {
        "kind": AssetKind.DATA,
        "type": _type(reader, data),
        "len": reader.integer(data, "len"),
    }


def _type(reader: Reader, owner: Object) -> int:
    return min(reader.count(owner, "type"), 32_767)


_MEMBERS: Final = {"title": _title, "img": _img, "video": _video, "data": _data}


def _is_short(request: Row, ad: Row) -> bool:
    return not request["len"] or ad["chars"] <= request["len"]


def _image_fits(request: Row, ad: Row) -> bool:
    if (request["type"] or NativeImage.MAIN) != (ad["type"] or NativeImage.MAIN):
        return False
    for side, least in (("w", "wmin"), ("h", "hmin")):
        if request[least]:
            if ad[side] < request[least]:
                return False
        elif request[side] and ad[side] != request[side]:
            return False
    return _mime_fits(request, ad)


def _video_fits(request: Row, ad: Row) -> bool:
    if ad["dur_s"] < request["minduration_s"]:
        return False
    if request["maxduration_s"] and ad["dur_s"] > request["maxduration_s"]:
        return False
    if request["protocols"] and not request["protocols"] >> ad["protocol"] & 1:
        return False
    return _mime_fits(request, ad)


def _mime_fits(request: Row, ad: Row) -> bool:
    return not request["mimes"] or bool(request["mimes"] & ad["mime"])
