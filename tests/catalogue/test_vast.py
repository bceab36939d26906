"""VAST: documents follow the schemas of their version, whatever URLs are put into them."""

from pathlib import Path

import pytest

from rtb.catalogue import vast
from rtb.catalogue.model import Creative, MediaFile

etree = pytest.importorskip("lxml.etree", reason="lxml validates against the schemas")

# Beside the checkout; these files are the IAB's and stay out of it.
SCHEMAS = Path(__file__).parents[3] / "shared" / "protocol" / "vast" / "xsd"
FILES = {
    "2.0": "vast_2.0.1.xsd", "3.0": "vast3_draft.xsd", "4.0": "vast4.xsd", "4.1": "vast_4.1.xsd",
    "4.2": "vast_4.2.xsd",
}  # fmt: skip
NAMESPACE = "http://www.iab.com/VAST"
NASTY_URL = "https://t.example/?a=1&b=<x>]]>&p=${AUCTION_PRICE}&e=[ERRORCODE]&i={bid_id}"


def creative(
    version: str,
    wrapper: bool,
    audio: bool = False,
    bare: bool = False,
    url: str = NASTY_URL,
) -> Creative:
    fields: dict[str, object] = {
        "id": 'v"<1>',
        "advertiser": "a",
        "type": "audio" if audio else "video",
        "vast_version": version,
        "duration_s": 3723,
    }
    if wrapper:
        fields["vast_tag_url"] = url
    else:
        size = {} if audio else {"width": 1280, "height": 720, "bitrate_kbps": 900}
        mime = "audio/mpeg" if audio else "video/mp4"
        fields["media_files"] = (MediaFile("https://c.example/v", mime, **size),)  # type: ignore[arg-type]
    if not bare:
        tracking = {"start": (url, "https://t.example/2"), "complete": (url,)}
        if version >= "3.0":
            fields["skip_after_s"] = 5
            tracking["progress@65"] = (url,)
        fields |= {
            "landing_page": url,
            "error_url": url,
            "impression_urls": (url, url),
            "click_trackers": (url,),
            "tracking": tracking,
        }
    return Creative(**fields)  # type: ignore[arg-type]


def document(subject: Creative) -> str:
    return vast.document(subject, 'Title & "co"', lambda url: url)


@pytest.mark.parametrize("version", FILES)
@pytest.mark.parametrize("wrapper", [False, True], ids=["inline", "wrapper"])
@pytest.mark.parametrize("audio", [False, True], ids=["video", "audio"])
@pytest.mark.parametrize("bare", [False, True], ids=["full", "bare"])
def test_document_is_valid(version: str, wrapper: bool, audio: bool, bare: bool) -> None:
    """Elements stand in the order of the version's schema."""
    if not SCHEMAS.is_dir():
        pytest.skip("the VAST schemas are not beside the checkout")
    schema = etree.XMLSchema(etree.parse(SCHEMAS / FILES[version]))
    text = document(creative(version, wrapper, audio, bare, "https://t.example/?a=1&b=2"))
    if version >= "4.0":
        # Players take documents without the namespace; the schemas do not.
        text = text.replace("<VAST ", f'<VAST xmlns="{NAMESPACE}" ', 1)
    schema.assertValid(etree.fromstring(text.encode()))


@pytest.mark.parametrize("version", [*FILES, "4.3"])
def test_urls_arrive_as_written(version: str) -> None:
    """CDATA keeps `&` and macros, and "]]>" does not end it."""
    root = etree.fromstring(document(creative(version, wrapper=False)).encode())
    for name in ("Impression", "ClickThrough", "Error", "ClickTracking"):
        assert root.find(f".//{name}").text == NASTY_URL
    assert root.find(".//Duration").text == "01:02:03"
    assert root.find("Ad").get("id") == 'v"<1>'
    assert root.find(".//AdTitle").text == 'Title & "co"'


def test_wrapper_names_its_tag() -> None:
    """A wrapper leads to the document that it wraps."""
    root = etree.fromstring(document(creative("4.2", wrapper=True)).encode())
    assert root.find(".//VASTAdTagURI").text == NASTY_URL
    assert root.find(".//MediaFiles") is None


PROTOCOLS = [
    ("2.0", 2, 5),
    ("3.0", 3, 6),
    ("4.0", 7, 8),
    ("4.1", 11, 12),
    ("4.2", 13, 14),
    ("4.3", 15, 16),
]


@pytest.mark.parametrize(("version", "inline", "wrapper"), PROTOCOLS)
def test_wrapper_and_inline_have_different_numbers(version: str, inline: int, wrapper: int) -> None:
    """OpenRTB numbers a wrapper apart from the version that it wraps."""
    assert inline == vast.protocol(creative(version, wrapper=False))
    assert wrapper == vast.protocol(creative(version, wrapper=True))
