"""Native requests of every version, and which assets answer them."""

import json

import pytest

from rtb.base.records import Quirk
from rtb.openrtb.native import NativeRequest, asset_fits, match_assets, read_native
from rtb.openrtb.reading import Reader, parse

TITLE = {"id": 1, "required": 1, "title": {"len": 25}}
MAIN = {"id": 2, "required": 1, "img": {"type": 3, "wmin": 300, "hmin": 200}}
ICON = {"id": 3, "img": {"type": 1, "w": 80, "h": 80}}
DATA = {"id": 4, "data": {"type": 2, "len": 90}}
VIDEO = {
    "id": 5,
    "video": {"mimes": ["video/mp4"], "minduration": 5, "maxduration": 30, "protocols": [2, 3]},
}

EMPTY = {"type": 0, "len": 0, "w": 0, "h": 0, "wmin": 0, "hmin": 0, "mimes": 0}
EMPTY |= {"minduration_s": 0, "maxduration_s": 0, "protocols": 0, "required": 0, "id": 1}
AD = {"type": 0, "chars": 0, "w": 0, "h": 0, "dur_s": 0, "mime": 0, "protocol": 0}


def read(native: object) -> tuple[NativeRequest | None, int]:
    reader = Reader()
    tree = parse(json.dumps(native).encode())
    return read_native(reader, tree), reader.quirks


@pytest.mark.parametrize(
    ("native", "version", "wrapped", "quirks"),
    [
        ({"request": json.dumps({"ver": "1.2", "assets": [TITLE]})}, 12, False, Quirk(0)),
        ({"request": {"ver": "1.2", "assets": [TITLE]}}, 12, False, Quirk.NATIVE_OBJECT),
        ({"request": json.dumps({"native": {"assets": [TITLE]}})}, 10, True, Quirk(0)),
        ({"request": json.dumps({"native": {"ver": "1.1", "assets": [TITLE]}})}, 11, True, 0),
        ({"request": json.dumps({"assets": [TITLE]}), "ver": "1.1"}, 11, False, Quirk(0)),
        ({"request": json.dumps({"assets": [TITLE]})}, 12, False, Quirk(0)),
        ({"request": json.dumps({"ver": 1.1, "assets": [TITLE]})}, 11, False, 8),
        ({"request": json.dumps({"ver": "1", "assets": [TITLE]})}, 10, False, Quirk(0)),
        ({"request": json.dumps({"ver": "9", "assets": [TITLE]})}, 12, False, Quirk(0)),
    ],
)
def test_versions(native: object, version: int, wrapped: bool, quirks: int):
    """A string, an object, wrapped or bare: all are read, and the wrapping is remembered."""
    request, noted = read(native)
    assert request is not None
    assert (version, wrapped, 1) == (request.version, request.wrapped, len(request.assets))
    assert quirks == noted


@pytest.mark.parametrize(
    "native",
    [
        {},
        {"request": ""},
        {"request": "{}"},
        {"request": "not json"},
        {"request": "[1]"},
        {"request": 7},
        {"request": [TITLE]},
        {"request": {"assets": []}},
        {"request": {"assets": "x"}},
        {"request": {"assets": [{"title": {"len": 3}, "required": 1}, TITLE]}},
        {"request": {"assets": [{"id": "x", "title": {"len": 3}}]}},
        {"request": "[" * 70},
    ],
)
def test_unanswerable(native: object):
    """Without readable assets that have ids there is nothing to answer."""
    assert read(native)[0] is None


def test_assets():
    """All four kinds with their limits."""
    request, _ = read({"request": {"assets": [TITLE, MAIN, ICON, DATA, VIDEO]}})
    assert request is not None
    title, main, icon, data, video = request.assets
    assert {"id": 1, "required": 1, "kind": 1, "len": 25} == title
    assert (2, 3, 300, 200) == (main["kind"], main["type"], main["wmin"], main["hmin"])
    assert (80, 80, 0) == (icon["w"], icon["h"], icon["required"])
    assert {"id": 4, "required": 0, "kind": 4, "type": 2, "len": 90} == data
    assert (5, 30, 0b1100) == (video["minduration_s"], video["maxduration_s"], video["protocols"])
    assert 1 << 16 == video["mimes"]


@pytest.mark.parametrize(
    "asset",
    [
        {"id": 1},
        {"id": 1, "title": {"len": 1}, "img": {"w": 1}},
        {"id": 1, "img": {"w": -20, "h": 30}},
        {"id": 1, "title": {"len": -1}},
        {"id": 1, "audio": {}},
    ],
)
def test_odd_assets_match_nothing(asset: dict):
    """An asset that is no kind, two kinds or of impossible size stays, and nothing fits it."""
    request, quirks = read({"request": {"assets": [asset]}})
    assert request is not None
    assert 0 == request.assets[0]["kind"]
    assert Quirk.BAD_VALUE_IGNORED | Quirk.NATIVE_OBJECT == quirks
    assert not any(asset_fits(request.assets[0], {**AD, "kind": kind}) for kind in range(7))


@pytest.mark.parametrize("key", ["eventtrackers", "eventrackers"])
def test_event_trackers(key: str):
    """Events count when an image may track them; the spec's own misspelling is accepted."""
    trackers = [{"event": 1, "methods": [1, 2]}, {"event": 2, "methods": [2]}, {"event": 500}]
    request, quirks = read({"request": {"assets": [TITLE], key: trackers}})
    assert request is not None
    assert 0b10 == request.events
    assert (key == "eventrackers") is bool(quirks & Quirk.OTHER_NOTATION)


@pytest.mark.parametrize(
    ("request_", "ad", "fits"),
    [
        ({"kind": 1, "len": 5}, {"kind": 1, "chars": 5}, True),
        ({"kind": 1, "len": 5}, {"kind": 1, "chars": 6}, False),
        ({"kind": 1}, {"kind": 1, "chars": 600}, True),
        ({"kind": 1}, {"kind": 4}, False),
        ({"kind": 4, "type": 2, "len": 5}, {"kind": 4, "type": 2, "chars": 5}, True),
        ({"kind": 4, "type": 2}, {"kind": 4, "type": 1}, False),
        ({"kind": 2, "type": 3}, {"kind": 2, "type": 0}, True),
        ({"kind": 2, "type": 0}, {"kind": 2, "type": 3}, True),
        ({"kind": 2, "type": 0}, {"kind": 2, "type": 1}, False),
        ({"kind": 2, "w": 80, "h": 80}, {"kind": 2, "w": 80, "h": 80}, True),
        ({"kind": 2, "w": 80}, {"kind": 2, "w": 90, "h": 80}, False),
        ({"kind": 2, "w": 80, "wmin": 40}, {"kind": 2, "w": 50}, True),
        ({"kind": 2, "wmin": 40, "hmin": 40}, {"kind": 2, "w": 400, "h": 39}, False),
        ({"kind": 2, "mimes": 0b10}, {"kind": 2, "mime": 0b10}, True),
        ({"kind": 2, "mimes": 0b10}, {"kind": 2, "mime": 0b100}, False),
        ({"kind": 2, "mimes": 0b10}, {"kind": 2, "mime": 0}, False),
        ({"kind": 3, "protocols": 0b1100}, {"kind": 3, "protocol": 2}, True),
        ({"kind": 3, "protocols": 0b1100}, {"kind": 3, "protocol": 5}, False),
        ({"kind": 3, "minduration_s": 5}, {"kind": 3, "dur_s": 4}, False),
        ({"kind": 3, "maxduration_s": 5}, {"kind": 3, "dur_s": 6}, False),
        ({"kind": 3, "maxduration_s": 0}, {"kind": 3, "dur_s": 600}, True),
    ],
)
def test_asset_fits(request_: dict, ad: dict, fits: bool):
    """Length, size, type, mime, duration and protocol each decide."""
    assert fits is asset_fits({**EMPTY, **request_}, {**AD, **ad})


def test_match_assets():
    """First fitting asset in order; optional ones may be left out, required ones not."""
    title = {**EMPTY, "kind": 1, "len": 10, "required": 1}
    data = {**EMPTY, "kind": 4, "type": 2, "id": 2}
    ads = [{**AD, "kind": 1, "chars": 20}, {**AD, "kind": 1, "chars": 9}]
    assert [1, -1, 1] == match_assets([title, data, {**title, "id": 3}], ads)
    assert match_assets([{**data, "required": 1}], ads) is None
    assert [] == match_assets([], ads)


def test_assets_of_one_id_are_answered_once():
    """The answer names assets by id: the first stands, and what else is required is lacking."""
    title = {**EMPTY, "kind": 1, "len": 10}
    longer, needed = {**title, "len": 20}, {**title, "required": 1}
    ads = [{**AD, "kind": 1, "chars": 9}]
    assert [0, -1] == match_assets([title, longer], ads)
    assert [0, -1] == match_assets([title, needed], ads)
    assert [0, -1] == match_assets([needed, longer], ads)
    assert match_assets([title, {**longer, "required": 1}], ads) is None
