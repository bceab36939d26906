"""VAST documents, 2.0 to 4.3, inline and wrapper, from a creative.

Element order is fixed by the schemas and differs between versions; URLs stand in CDATA so that `&`
and `${AUCTION_...}` survive. Texts here still hold our macros (`{bid_id}`, and our notice URLs:
`{impression_url|raw}`); `render` cuts them out.
Spec: IAB VAST XSDs; OpenRTB protocol numbers from AdCOM list "Creative Subtypes - Audio/Video".
"""

from collections.abc import Callable, Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from rtb.base.events import VIDEO_NAMES
from rtb.catalogue.model import Creative, MediaFile

# Version -> protocol number of an inline document and of a wrapper.
PROTOCOLS: Final = {
    "2.0": (2, 5), "3.0": (3, 6), "4.0": (7, 8), "4.1": (11, 12), "4.2": (13, 14), "4.3": (15, 16),
}  # fmt: skip
AD_SYSTEM: Final = "rtb"
# The schemas ask for an impression even when nobody listens.
NO_IMPRESSION: Final = "about:blank"

EVENTS: Final = frozenset({
    "creativeView", "start", "firstQuartile", "midpoint", "thirdQuartile", "complete", "mute",
    "unmute", "pause", "rewind", "resume", "fullscreen", "exitFullscreen", "expand", "collapse",
    "acceptInvitation", "close", "skip", "progress", "closeLinear", "loaded", "playerExpand",
    "playerCollapse", "otherAdInteraction", "timeSpentViewing", "interactiveStart",
})  # fmt: skip

# Events that we count ourselves; `skip` is not in the schema of 2.0.
COUNTED: Final = VIDEO_NAMES

Url = Callable[[str], str]


def protocol(creative: Creative) -> int:
    """The OpenRTB protocol number of the document that a creative answers with."""
    inline, wrapper = PROTOCOLS[creative.vast_version]
    return wrapper if creative.vast_tag_url else inline


def cdata(text: str) -> str:
    """Text in CDATA; "]]>" in it is cut in two sections."""
    return f"<![CDATA[{text.replace(']]>', ']]]]><![CDATA[>')}]]>"


def duration_text(seconds: int) -> str:
    """HH:MM:SS."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def document(creative: Creative, title: str, url: Url, *, counted: bool = True) -> str:
    """The whole document for a creative; `url` expands what is static in its URLs.

    counted: with our own notices, beside those of the advertiser.
    Callers guarantee: `check` passed the creative, so what its kind of document needs is there.
    """
    version = creative.vast_version
    if creative.vast_tag_url:
        body = _wrapper(creative, url, counted)
    else:
        body = _inline(creative, title, url, counted)
    ad_type = ' adType="audio"' if creative.type == "audio" and version >= "4.1" else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><VAST version="{version}">'
        f"<Ad id={quoteattr(creative.id)}{ad_type}>{body}</Ad></VAST>"
    )


def _inline(creative: Creative, title: str, url: Url, counted: bool) -> str:
    version = creative.vast_version
    system, name = f"<AdSystem>{AD_SYSTEM}</AdSystem>", f"<AdTitle>{escape(title)}</AdTitle>"
    # Named after the bid, so that both sides of a dispute speak of the same serving.
    serving = "<AdServingId>{bid_id}</AdServingId>" if version >= "4.1" else ""
    error, impressions = _error(creative, url), _impressions(creative, url, counted)
    creatives = f"<Creatives>{_creative(creative, url, counted)}</Creatives>"
    if version < "4.0":
        parts = [system, name, error, impressions, creatives]
    else:
        parts = [system, error, impressions, serving, name, creatives]
    return f"<InLine>{''.join(parts)}</InLine>"


def _wrapper(creative: Creative, url: Url, counted: bool) -> str:
    version = creative.vast_version
    system = f"<AdSystem>{AD_SYSTEM}</AdSystem>"
    tag = f"<VASTAdTagURI>{cdata(url(creative.vast_tag_url or ''))}</VASTAdTagURI>"
    error, impressions = _error(creative, url), _impressions(creative, url, counted)
    # The click leads where the wrapped document says: ours only counts it.
    ours = ("{click_tracking_url|raw}",) if counted else ()
    linear = _tracking(creative, url, counted) + _clicks("", ours, creative, url)
    creatives = f"<Creatives><Creative><Linear>{linear}</Linear></Creative></Creatives>"
    if version < "4.0":
        parts = (system, tag, error, impressions, creatives)
    else:
        parts = (system, error, impressions, creatives, tag)
    follow = ' followAdditionalWrappers="true"' if version >= "4.0" else ""
    return f"<Wrapper{follow}>{''.join(parts)}</Wrapper>"


def _creative(creative: Creative, url: Url, counted: bool) -> str:
    version = creative.vast_version
    skip = ""
    if creative.skip_after_s is not None and version >= "3.0":
        skip = f' skipoffset="{duration_text(creative.skip_after_s)}"'
    duration = f"<Duration>{duration_text(creative.duration_s or 0)}</Duration>"
    page = "{click_url|raw}" if counted else url(creative.landing_page or "")
    clicks = _clicks(page if creative.landing_page else "", (), creative, url)
    tracking = _tracking(creative, url, counted)
    media = "".join(_media_file(file, creative, url) for file in creative.media_files)
    media = f"<MediaFiles>{media}</MediaFiles>"
    if version < "4.0":
        parts = (duration, tracking, clicks, media)
    else:
        parts = (tracking, duration, media, clicks)
    id_name = "AdID" if version < "4.0" else "adId"
    return (
        f"<Creative id={quoteattr(creative.id)} {id_name}={quoteattr(creative.id)}>"
        f"<Linear{skip}>{''.join(parts)}</Linear>{_universal_id(creative)}</Creative>"
    )


def _universal_id(creative: Creative) -> str:
    if creative.vast_version < "4.0":
        return ""
    value = ' idValue="unknown"' if creative.vast_version == "4.0" else ""
    return f'<UniversalAdId idRegistry="unknown"{value}>unknown</UniversalAdId>'


def _media_file(file: MediaFile, creative: Creative, url: Url) -> str:
    # The schemas ask for a size even of sound.
    width, height = file.width or creative.width or 0, file.height or creative.height or 0
    bitrate = f' bitrate="{file.bitrate_kbps}"' if file.bitrate_kbps else ""
    return (
        f'<MediaFile delivery="{file.delivery}" type={quoteattr(file.mime)} width="{width}"'
        f' height="{height}"{bitrate}>{cdata(url(file.url))}</MediaFile>'
    )


def _error(creative: Creative, url: Url) -> str:
    return f"<Error>{cdata(url(creative.error_url))}</Error>" if creative.error_url else ""


def _impressions(creative: Creative, url: Url, counted: bool) -> str:
    """Impressions, ours first; since 4.0 also the report that it was in view."""
    urls = ["{impression_url|raw}"] * counted + [url(each) for each in creative.impression_urls]
    found = "".join(f"<Impression>{cdata(each)}</Impression>" for each in urls or [NO_IMPRESSION])
    if counted and creative.vast_version >= "4.0":
        seen = f"<Viewable>{cdata('{view_url|raw}')}</Viewable>"
        found += f"<ViewableImpression>{seen}</ViewableImpression>"
    return found


def _tracking(creative: Creative, url: Url, counted: bool) -> str:
    """Events, ours first; "progress@5" fires after five seconds (3.0 and later)."""
    names = counted_events(creative) if counted else ()
    parts = [_tracker(name, "", f"{{video_url.{name}|raw}}") for name in names]
    for name, urls in creative.tracking.items():
        event, _, offset = name.partition("@")
        at = f' offset="{duration_text(int(offset))}"' if offset else ""
        parts += [_tracker(event, at, url(each)) for each in urls]
    return f"<TrackingEvents>{''.join(parts)}</TrackingEvents>" if parts else ""


def counted_events(creative: Creative) -> tuple[str, ...]:
    """The names of the events that we count of a creative."""
    skips = creative.vast_version >= "3.0" and creative.linearity == 1
    return tuple(name for name in COUNTED.values() if skips or name != "skip")


def _tracker(event: str, at: str, text: str) -> str:
    return f'<Tracking event="{event}"{at}>{cdata(text)}</Tracking>'


def _clicks(through: str, ours: Sequence[str], creative: Creative, url: Url) -> str:
    """Click trackers, ours first, and where the click leads, unless that is nowhere."""
    urls = [*ours, *(url(each) for each in creative.click_trackers)]
    parts = [f"<ClickTracking>{cdata(each)}</ClickTracking>" for each in urls]
    if through:
        # First up to 3.0; last since 4.0, whose schema extends that of wrappers.
        place = 0 if creative.vast_version < "4.0" else len(parts)
        parts.insert(place, f"<ClickThrough>{cdata(through)}</ClickThrough>")
    return f"<VideoClicks>{''.join(parts)}</VideoClicks>" if parts else ""
