"""Renders a creative's share of a bid ahead of time: all of it but what one auction decides.

A frame is a fragment of a JSON object, `,"adomain":[...],...,"adm":"..."`, as pieces: literal
bytes and holes (`records.Hole`) that the encoder fills. Markup is built with our macros
in it, cut at them, and escaped last. `${AUCTION_...}` belongs to the exchange and stays as it is.

Macros in markup and URLs:

    {bid_id} {auction_id} {imp_id} {cachebuster} {width} {height}    filled for each bid
    {click_url} {impression_url} {view_url} ...                      our notice URLs, likewise
    {landing_page} {product.title} {product.price} ...               filled here
    {product.title|js}  {click_url|url}                              escaped for where they stand
"""

import difflib
import html
import re
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import quote

import orjson

from rtb.base.records import MIMES, Escape, Hole, Media
from rtb.catalogue import vast
from rtb.catalogue.model import Advertiser, Creative, Image, MediaFile, Native, Product
from rtb.catalogue.targeting_values import host_text

HOLES: Final = {
    "bid_id": Hole.BID_ID,
    "width": Hole.WIDTH,
    "height": Hole.HEIGHT,
    "cachebuster": Hole.CACHEBUSTER,
    "auction_id": Hole.AUCTION_ID,
    "imp_id": Hole.IMP_ID,
}
# Notice URLs: which hole, and of a video its event.
NOTICES: Final = {
    "click_url": (Hole.CLICK_URL, 0),
    "click_tracking_url": (Hole.CLICK_URL, 0),  # counts, and leads nowhere
    "impression_url": (Hole.IMPRESSION_URL, 0),
    "view_url": (Hole.VIEW_URL, 0),
} | {f"video_url.{name}": (Hole.VIDEO_URL, int(each)) for each, name in vast.COUNTED.items()}
PRODUCT_FIELDS: Final = (
    "id", "title", "description", "link", "image_link", "price", "sale_price", "brand", "category",
    "condition", "color", "size",
)  # fmt: skip
# How a macro is escaped, and what that is for a notice URL: one is safe in a script as it is.
ESCAPES: Final = {
    "html": Escape.HTML, "js": Escape.NONE, "url": Escape.URL, "raw": Escape.NONE,
}  # fmt: skip

_NOTICE = "|".join(NOTICES).replace(".", r"\.")
_AUCTION = re.compile("{(" + "|".join(HOLES) + ")}")
_HOLE = re.compile(rf"{_AUCTION.pattern}|{{({_NOTICE})(?:\|({'|'.join(ESCAPES)}))?}}")
# Names of XML namespaces look like URLs; nothing is fetched from there.
_INSECURE = re.compile(r"http://(?!www\.w3\.org/)", re.IGNORECASE)
_STATIC = re.compile(rf"{{(landing_page|product\.([a-z_]+)|{_NOTICE})(?:\|([a-z]+))?}}")

# Whatever looks like a macro; a script or style has braces of its own.
_LIKELY: Final = re.compile(r"{([a-z]+[_.][a-z_.]+)(?:\|[a-z]+)?}")
LIKENESS: Final = 0.8  # of two names with one letter missing, added or exchanged
_NAMES: Final = (*HOLES, *NOTICES, "landing_page", *(f"product.{each}" for each in PRODUCT_FIELDS))

# Native data types by the name of the field (Native 1.2, list 7.4).
DATA_TYPES: Final = {
    "sponsored": 1, "description": 2, "rating": 3, "likes": 4, "downloads": 5, "price": 6,
    "sale_price": 7, "phone": 8, "address": 9, "description2": 10, "display_url": 11, "cta": 12,
}  # fmt: skip
# Kinds of rows in the snapshot's `assets`.
TITLE, IMAGE, VIDEO, DATA, LINK, IMPRESSION = 1, 2, 3, 4, 5, 6
IMAGE_ICON, IMAGE_MAIN = 1, 3

_EXTENSIONS: Final = {
    "jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "gif": "image/gif",
    "webp": "image/webp", "svg": "image/svg+xml", "avif": "image/avif",
}  # fmt: skip
_MEDIA: Final = {
    "image": Media.BANNER, "html": Media.BANNER, "video": Media.VIDEO, "audio": Media.AUDIO,
    "native": Media.NATIVE,
}  # fmt: skip


class Piece(NamedTuple):
    """A part of a frame: literal text, or a hole and what it is filled with.

    text: of a CLICK_URL, where it leads (see `click_target`). event, escape: of a notice URL.
    """

    text: bytes
    hole: Hole
    event: int = 0
    escape: Escape = Escape.NONE


class Asset(NamedTuple):
    """One native asset; `text` as it should be seen, not yet escaped; of a link, `click_target`."""

    kind: int
    type: int
    text: str
    w: int = 0
    h: int = 0
    dur_s: int = 0
    mime: int = 0
    protocol: int = 0


class MacroError(ValueError):
    """A macro that names nothing, or something that the creative has not."""


def media_number(creative: Creative) -> Media:
    """The medium as `bid.mtype`."""
    return _MEDIA[creative.type]


def json_text(text: str) -> bytes:
    """The contents of a JSON string, without its quotes."""
    return orjson.dumps(text)[1:-1]


def asset_text(text: str) -> bytes:
    """Text of a native asset: a JSON string within the JSON string `adm`."""
    return json_text(json_text(text).decode())


# -- macros ---------------------------------------------------------------------------------------


def expand(text: str, creative: Creative, product: Product | None, escape: str = "raw") -> str:
    """Fills what is known ahead: the landing page and the product.

    `escape` is for macros that do not name their own; notice URLs, filled later, are given it.
    Raises: MacroError.
    """

    def fill(match: re.Match[str]) -> str:
        name, field, own = match.groups()
        how = own or escape
        if how not in ESCAPES:
            raise MacroError(f"unknown escape in {match[0]}: expected {', '.join(ESCAPES)}")
        if name in NOTICES:
            if name == "click_url" and not creative.landing_page:
                raise MacroError(f"{match[0]}: no landing_page to lead to")
            return f"{{{name}|{how}}}"
        value = creative.landing_page if name == "landing_page" else _field(product, field, match)
        if value is None:
            raise MacroError(f"{match[0]}: nothing to fill it with")
        return _escaped(value, how)

    return _STATIC.sub(fill, text)


def misspelt(*texts: str) -> Iterator[tuple[str, str]]:
    """What was left in some texts, and the macro that it resembles, without its braces."""
    for match in _LIKELY.finditer(" ".join(texts)):
        name = match[1]
        near = [] if name in _NAMES else difflib.get_close_matches(name, _NAMES, 1, LIKENESS)
        for meant in near:
            yield match[0], meant


def _field(product: Product | None, field: str, match: re.Match[str]) -> str | None:
    if field not in PRODUCT_FIELDS:
        raise MacroError(f"{match[0]}: a product has {', '.join(PRODUCT_FIELDS)}")
    value: str | None = getattr(product, field) if product else None
    return value


def _escaped(value: str, how: str) -> str:
    if how == "html":
        return html.escape(value)
    if how == "url":
        return quote(value, safe="")
    if how == "js":
        # Safe between either kind of quotes, and in a script of an HTML page ("</script>").
        text = json_text(value).decode().replace("'", "\\u0027").replace("`", "\\u0060")
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return value


def pieces_of(markup: str, target: str = "") -> Iterator[Piece]:
    """Markup cut at its holes, literals as JSON string contents; `target` is that of clicks."""
    end = 0
    for match in _HOLE.finditer(markup):
        if match.start() > end:
            yield Piece(json_text(markup[end : match.start()]), Hole.NONE)
        yield _hole(match, target)
        end = match.end()
    if end < len(markup):
        yield Piece(json_text(markup[end:]), Hole.NONE)


def _hole(match: re.Match[str], target: str) -> Piece:
    name, notice, how = match.groups()
    if name is not None:
        return Piece(b"", HOLES[name])
    text = target.encode() if notice == "click_url" else b""
    return Piece(text, *NOTICES[notice], ESCAPES[how or "raw"])


def click_target(creative: Creative, product: Product | None) -> str:
    """The landing page as a click URL carries it: percent-encoded; "" where there is none.

    What only an auction knows stays a macro, `{bid_id}`: its braces are the only ones, since braces
    are percent-encoded. What is signed is the landing page with those filled in.
    Raises: MacroError.
    """
    page = expand(creative.landing_page or "", creative, product, "url")
    parts = _AUCTION.split(page)
    if any(_HOLE.search(part) for part in parts):
        raise MacroError("landing_page: a notice URL leads there, and cannot be part of it")
    encoded = (quote(part, safe="") for part in parts)
    return "".join(f"{{{part}}}" if n % 2 else part for n, part in enumerate(encoded))


# -- markup ---------------------------------------------------------------------------------------


def markup(creative: Creative, product: Product | None) -> str:
    """The ad itself, macros of the auction still in it. Native ads have none here: see `assets`."""

    def url(text: str) -> str:
        return expand(text, creative, product, "url")

    match creative.type:
        case "image":
            return _image_html(creative, product)
        case "html":
            own = expand(creative.html or "", creative, product, "html")
            return own + _pixels(creative, product, ours="{impression_url" not in own)
        case "video" | "audio":
            return vast.document(creative, creative.name or creative.id, url)
        case "native":
            return ""


def _image_html(creative: Creative, product: Product | None) -> str:
    def attribute(text: str) -> str:
        return html.escape(expand(text, creative, product, "url"))

    alt = html.escape(expand(creative.alt, creative, product))
    return (
        '<a href="{click_url|html}" target="_blank" rel="noopener">'
        f'<img src="{attribute(creative.image_url or "")}" width="{creative.width}"'
        f' height="{creative.height}" alt="{alt}" style="border:0"></a>'
        f"{_pixels(creative, product)}"
    )


def _pixels(creative: Creative, product: Product | None, ours: bool = True) -> str:
    """Impression trackers: our own first, unless the markup has it elsewhere."""
    urls = [expand(url, creative, product, "url") for url in creative.impression_urls]
    sources = ["{impression_url|html}"] * ours + [html.escape(url) for url in urls]
    return "".join(
        f'<img src="{source}"'
        ' width="1" height="1" alt="" style="position:absolute;visibility:hidden">'
        for source in sources
    )


def is_secure(creative: Creative, product: Product | None) -> bool:
    """No URL in the ad goes without TLS, nor its landing page behind our click URL."""
    texts = [markup(creative, product), *(asset.text for asset in assets(creative, product))]
    texts.append(expand(creative.landing_page or "", creative, product, "url"))
    return not any(_INSECURE.search(text) for text in texts)


# -- native ---------------------------------------------------------------------------------------


def assets(creative: Creative, product: Product | None) -> list[Asset]:
    """The assets of a native ad, its link and its impression trackers; [] for other types."""
    native = creative.native
    if creative.type != "native" or native is None:
        return []

    def text(value: str) -> str:
        return expand(value, creative, product)

    def url(value: str) -> str:
        return expand(value, creative, product, "url")

    found = [Asset(TITLE, 0, text(native.title))]
    for image, kind in _images(native):
        mime = mime_mask(image.mime or mime_of(image.url))
        found.append(Asset(IMAGE, kind, url(image.url), image.width, image.height, mime=mime))
    found += [Asset(DATA, kind, text(value)) for kind, value in _data(native)]
    if creative.media_files:
        found.append(_video_asset(creative, url))
    found.append(Asset(LINK, 0, click_target(creative, product)))
    return found + [Asset(IMPRESSION, 0, url(tracker)) for tracker in creative.impression_urls]


def _images(native: Native) -> Iterator[tuple[Image, int]]:
    if native.icon:
        yield native.icon, IMAGE_ICON
    if native.main:
        yield native.main, IMAGE_MAIN
    for image in native.images:
        yield image, IMAGE_MAIN


def _data(native: Native) -> Iterator[tuple[int, str]]:
    for name, kind in DATA_TYPES.items():
        value: str | None = getattr(native, name)
        if value is not None:
            yield kind, value
    for number, value in native.data.items():
        yield int(number), value


def _video_asset(creative: Creative, url: vast.Url) -> Asset:
    # The bid is not known inside an asset: the serving is named after the creative, and no notice
    # of ours is in it.
    document = vast.document(creative, creative.name or creative.id, url, counted=False)
    return Asset(
        VIDEO,
        0,
        document.replace("{bid_id}", creative.id),
        creative.width or 0,
        creative.height or 0,
        creative.duration_s or 0,
        media_mask(creative.media_files),
        vast.protocol(creative),
    )


# -- facts about markup ---------------------------------------------------------------------------


def mime_of(url: str) -> str:
    """The type that the extension of a URL promises; "" when it promises none."""
    path = url.split("?", 1)[0].split("#", 1)[0]
    return _EXTENSIONS.get(path.rsplit(".", 1)[-1].lower(), "")


def mime_mask(mime: str) -> int:
    """The mask of one MIME type; 0 when masks do not know it."""
    bit = MIMES.get(mime.split(";", 1)[0].strip().lower())
    return 0 if bit is None else 1 << bit


def media_mask(files: tuple[MediaFile, ...]) -> int:
    """The types of all renditions: the player takes the one it can play."""
    mask = 0
    for file in files:
        mask |= mime_mask(file.mime)
    return mask


def creative_mimes(creative: Creative) -> int:
    """The mask of a creative's types, for `mimes` of the request."""
    match creative.type:
        case "image":
            return mime_mask(creative.mime or mime_of(creative.image_url or ""))
        case "html":
            return _markup_mask(mime_mask(creative.mime or "text/html"))
        case "native":
            return 0
        case _:
            return media_mask(creative.media_files) or mime_mask(creative.mime or "")


def _markup_mask(mask: int) -> int:
    """Markup may hold scripts and a script may write markup: who takes one takes the other."""
    both = mime_mask("text/html") | mime_mask("text/javascript")
    return mask | both if mask & both else mask


def banner_type(creative: Creative) -> int:
    """`btype`: 2 XHTML banner, 3 JavaScript, 4 iframe; what the advertiser says comes first."""
    if creative.btype is not None:
        return creative.btype
    text = (creative.html or "").lower()
    if "<script" in text:
        return 3
    return 4 if "<iframe" in text else 2


# -- the frame ------------------------------------------------------------------------------------


def domains_of(creative: Creative, advertiser: Advertiser) -> tuple[str, ...]:
    """`adomain`: the creative's own, else the advertiser's, as bare host names."""
    return tuple(host_text(domain) for domain in creative.domains or advertiser.domains)


def shown_categories(creative: Creative) -> tuple[int, tuple[str, ...]]:
    """`cattax` and `cat`. A bid has one taxonomy: the lowest number is the one most in use."""
    if not creative.categories:
        return 1, ()
    taxonomy = min(creative.categories, key=int)
    return int(taxonomy), creative.categories[taxonomy]


def campaign_piece(campaign_id: str) -> Piece:
    """The part of a frame that the line item's campaign decides."""
    return Piece(b',"cid":' + orjson.dumps(campaign_id), Hole.NONE)


def frame(creative: Creative, advertiser: Advertiser, product: Product | None) -> list[Piece]:
    """The rest of it, from `adomain` to `adm`."""
    pieces: list[Piece] = []
    _put(pieces, _static_fields(creative, advertiser, product))
    if advertiser.dsa is not None:
        # Markup that we make says nothing of it: an exchange whose page says nothing either has to
        # hear that nobody does.
        said = {
            "behalf": advertiser.dsa.behalf,
            "paid": advertiser.dsa.paid,
            "adrender": int(advertiser.dsa.adrender),
        }
        pieces.append(Piece(b',"ext":' + orjson.dumps({"dsa": said}), Hole.DSA))
    if creative.flexible:
        _put(pieces, b',"w":')
        pieces.append(Piece(b"", Hole.WIDTH))
        _put(pieces, b',"h":')
        pieces.append(Piece(b"", Hole.HEIGHT))
    _put(pieces, b',"adm":"')
    if creative.type == "native":
        pieces.append(Piece(b"", Hole.NATIVE))
    for piece in pieces_of(markup(creative, product), click_target(creative, product)):
        if piece.hole is Hole.NONE:
            _put(pieces, piece.text)
        else:
            pieces.append(piece)
    _put(pieces, b'"')
    return pieces


def _put(pieces: list[Piece], text: bytes) -> None:
    """Appends a literal, joined to the literal before it."""
    if pieces and pieces[-1].hole is Hole.NONE:
        text = pieces.pop().text + text
    pieces.append(Piece(text, Hole.NONE))


def shown_size(creative: Creative) -> tuple[int | None, int | None]:
    """The size that a bid says: the creative's own, else that of a video's largest rendition."""
    if creative.width is not None or creative.type != "video":
        return creative.width, creative.height
    sizes = [(file.width, file.height) for file in creative.media_files if file.width]
    return max(sizes, key=lambda size: size[0] or 0) if sizes else (None, None)


def _static_fields(creative: Creative, advertiser: Advertiser, product: Product | None) -> bytes:
    taxonomy, codes = shown_categories(creative)
    sized = creative.type != "native" and not creative.flexible
    width, height = shown_size(creative)
    is_av = creative.type in {"video", "audio"}
    preview = creative.preview_url or (creative.image_url if creative.type == "image" else None)
    fields: dict[str, object] = {
        "adomain": domains_of(creative, advertiser),
        "crid": creative.id,
        "adid": creative.id,
        "cat": codes,
        "cattax": taxonomy if codes else None,
        "attr": creative.attr,
        "apis": creative.api,
        "language": creative.language and creative.language.replace("_", "-").split("-")[0].lower(),
        "mtype": int(media_number(creative)),
        "w": width if sized else None,
        "h": height if sized else None,
        "dur": creative.duration_s if is_av else None,
        "protocol": vast.protocol(creative) if is_av else None,
        "qagmediarating": creative.rating,
        "bundle": creative.bundle,
        "iurl": preview and expand(preview, creative, product, "url"),
    }
    present = {name: value for name, value in fields.items() if value not in (None, (), "")}
    return b"," + orjson.dumps(present)[1:-1]


def has_hole(text: str) -> bool:
    """Does a text hold a macro that only an auction can fill."""
    return _HOLE.search(text) is not None


def has_unsafe_script(markup: str) -> bool:
    """Does a macro stand inside a script without being escaped for one."""
    scripts = re.findall(r"<script\b.*?(?:</script|$)", markup, re.IGNORECASE | re.DOTALL)
    return any(_is_unsafe(match) for script in scripts for match in _STATIC.finditer(script))


def _is_unsafe(match: re.Match[str]) -> bool:
    name, field, how = match.groups()
    # A notice URL breaks no quotes, but an entity in it is not undone.
    return (name in NOTICES and how in {None, "html"}) or (field is not None and how != "js")
