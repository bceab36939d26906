"""VAST: documents follow the schemas of their version, whatever URLs are put into them."""

import re
from pathlib import Path
from typing import Any

import msgspec
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
    """The document with a URL in place of each of our notices."""
    text = vast.document(subject, 'Title & "co"', lambda url: url)
    return re.sub(r"\{([a-z_]+_url[.A-Za-z]*)\|raw\}", r"https://bid.example/n/\1?t=1&u=2", text)


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
    for name in ("Impression", "Error", "ClickTracking"):
        assert NASTY_URL in [each.text for each in root.findall(f".//{name}")]
    assert root.find(".//Duration").text == "01:02:03"
    assert root.find("Ad").get("id") == 'v"<1>'
    assert root.find(".//AdTitle").text == 'Title & "co"'


def ours(root: Any, path: str) -> list[str]:
    """Our notices at a place, by macro."""
    texts = [each.text for each in root.findall(f".//{path}")]
    return [text[22:].split("?")[0] for text in texts if text.startswith("https://bid.example/n/")]


@pytest.mark.parametrize("wrapper", [False, True], ids=["inline", "wrapper"])
@pytest.mark.parametrize("version", [*FILES, "4.3"])
def test_notices_stand_beside_the_advertisers(version: str, wrapper: bool) -> None:
    """Our impression is first, and each event that a version has is counted once by each side."""
    root = etree.fromstring(document(creative(version, wrapper)).encode())
    assert root.find(".//Impression").text == "https://bid.example/n/impression_url?t=1&u=2"
    names = ["start", "firstQuartile", "midpoint", "thirdQuartile", "complete", "mute", "pause"]
    names += ["skip"] * (version >= "3.0")
    assert [f"video_url.{name}" for name in names] == ours(root, "Tracking")
    starts = [each.text for each in root.findall(".//Tracking[@event='start']")]
    assert starts[1:] == [NASTY_URL, "https://t.example/2"]
    assert ours(root, "ViewableImpression/Viewable") == ["view_url"] * (version >= "4.0")
    click, tracking = ([], ["click_tracking_url"]) if wrapper else (["click_url"], [])
    assert (click, tracking) == (ours(root, "ClickThrough"), ours(root, "ClickTracking"))


def test_nonlinear_video_counts_no_skip() -> None:
    """Only what plays in line can be skipped."""
    assert "skip" in vast.counted_events(creative("3.0", wrapper=False))
    overlay = msgspec.structs.replace(creative("3.0", wrapper=False), linearity=2)
    assert "skip" not in vast.counted_events(overlay)


def test_uncounted_document_has_no_notice_of_ours() -> None:
    """A video asset of a native ad knows no bid."""
    subject = creative("4.2", wrapper=False)
    text = vast.document(subject, "T", lambda url: url, counted=False)
    assert "_url" not in text
    assert etree.fromstring(text.encode()).find(".//ClickThrough").text == NASTY_URL


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
