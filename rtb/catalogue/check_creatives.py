"""The rules of creatives: what each type needs, and what shows only when an ad is put together."""

from collections.abc import Callable
from typing import Final

from rtb.base.links import CONVERSION_MACRO
from rtb.catalogue import check_parts as parts
from rtb.catalogue import render, vast
from rtb.catalogue.check_parts import Remarks
from rtb.catalogue.model import Catalogue, Creative, Image, Product, product_key
from rtb.catalogue.targeting_values import category_text, host_text, language_text

# Limits, each far above honest use.
MARKUP_BYTES_MAX: Final = 256 * 1024
SIDE_PX_MAX: Final = 16_384
DURATION_S_MAX: Final = 6 * 3600


def creative_remarks(creative: Creative, catalogue: Catalogue) -> Remarks:
    """Everything that is wrong with a creative; what it needs is in the catalogue."""
    advertiser = catalogue.advertisers.get(creative.advertiser)
    if advertiser is None:
        yield "advertiser", f"unknown advertiser {creative.advertiser!r}"
    elif not creative.domains and not advertiser.domains:
        yield "domains", "neither the creative nor its advertiser has any; exchanges require one"
    product = _product_of(creative, catalogue)
    # Of an advertiser that is unknown no product can be known: said once is enough.
    unknowable = creative.product is not None and advertiser is None
    if creative.product is not None and product is None and not unknowable:
        yield "product", f"unknown product {creative.product!r} of {creative.advertiser!r}"
    wrong = [*_TYPES[creative.type](creative), *_sizes(creative), *_lists(creative)]
    wrong += [*_urls(creative), *parts.caps(creative.frequency_caps, ("creative",))]
    yield from wrong
    if not unknowable and not any(len(remark) == 2 for remark in wrong):
        yield from _rendering(creative, product)


def _product_of(creative: Creative, catalogue: Catalogue) -> Product | None:
    if creative.product is None:
        return None
    return catalogue.products.get(product_key(creative.advertiser, creative.product))


def _needs(creative: Creative, *names: str) -> Remarks:
    for name in names:
        if not getattr(creative, name):
            yield name, f"a creative of type {creative.type} needs it"


def _image(creative: Creative) -> Remarks:
    yield from _needs(creative, "image_url", "width", "height", "landing_page")
    mime = creative.mime or render.mime_of(creative.image_url or "")
    if not render.mime_mask(mime):
        yield "mime", "unknown image type: not served where the exchange lists types", "warning"


def _html(creative: Creative) -> Remarks:
    yield from _needs(creative, "html")
    if (creative.width is None) != (creative.height is None):
        yield "width", "expected both width and height, or neither for any size"


def _native(creative: Creative) -> Remarks:
    yield from _needs(creative, "native", "landing_page")
    native = creative.native
    if native is None:
        return
    if not native.title.strip():
        yield "native.title", "expected a text"
    for number in native.data:
        if not (number.isascii() and number.isdigit() and 0 < int(number[:4]) < 256):
            yield "native.data", f"expected the number of a data type, got {number!r}"
    images: dict[str, Image | None] = {"native.icon": native.icon, "native.main": native.main}
    images |= {f"native.images[{index}]": image for index, image in enumerate(native.images)}
    for place, image in images.items():
        if image is not None:
            yield from parts.number(f"{place}.width", image.width, 1, SIDE_PX_MAX)
            yield from parts.number(f"{place}.height", image.height, 1, SIDE_PX_MAX)
            yield from parts.url(f"{place}.url", image.url, creative.secure)
    if creative.media_files:
        yield from _needs(creative, "duration_s")


def _av(creative: Creative) -> Remarks:
    if bool(creative.media_files) == bool(creative.vast_tag_url):
        yield "media_files", "expected either media_files or vast_tag_url"
    yield from _needs(creative, "duration_s")
    if creative.vast_tag_url and not render.mime_mask(creative.mime or ""):
        told = "of the media behind the tag: not served where the exchange lists types, and most do"
        yield "mime", told, "warning"
    if creative.media_files and not creative.landing_page:
        yield "landing_page", "none: the ad cannot be clicked", "warning"
    for event in creative.tracking:
        name, at, offset = event.partition("@")
        if name not in vast.EVENTS or (name == "progress") != bool(at):
            yield f"tracking.{event}", "unknown event; progress is written progress@seconds"
        elif at and not (offset.isascii() and offset.isdigit() and len(offset) < 6):
            yield f"tracking.{event}", "expected whole seconds after @"
    if creative.type == "video" and creative.media_files and not _video_sized(creative):
        yield "width", "the video's width and height are needed, here or on its media files"


def _video_sized(creative: Creative) -> bool:
    own = creative.width and creative.height
    return bool(own) or all(file.width and file.height for file in creative.media_files)


_TYPES: Final[dict[str, Callable[[Creative], Remarks]]] = {
    "image": _image,
    "html": _html,
    "native": _native,
    "video": _av,
    "audio": _av,
}


def _sizes(creative: Creative) -> Remarks:
    """Sizes, durations and rates that exist."""
    limits = {
        "width": (1, SIDE_PX_MAX),
        "height": (1, SIDE_PX_MAX),
        "duration_s": (1, DURATION_S_MAX),
        "skip_after_s": (0, DURATION_S_MAX),
    }
    for name, (low, high) in limits.items():
        value: int | None = getattr(creative, name)
        if value is not None:
            yield from parts.number(name, value, low, high)
    for index, file in enumerate(creative.media_files):
        place = f"media_files[{index}]"
        for name, number in (("width", file.width), ("height", file.height)):
            if number is not None:
                yield from parts.number(f"{place}.{name}", number, 1, SIDE_PX_MAX)
        if file.bitrate_kbps is not None:
            yield from parts.number(f"{place}.bitrate_kbps", file.bitrate_kbps, 1, 1_000_000)
        if not render.mime_mask(file.mime):
            yield f"{place}.mime", f"unknown type {file.mime!r}: refused by most", "warning"


def _lists(creative: Creative) -> Remarks:
    """Numbers of the exchange's lists, categories, domains, language."""
    for name, values, top in (
        ("attr", creative.attr, 63),
        ("api", creative.api, 31),
        ("expandable", creative.expandable, 6),
    ):
        if any(not 1 <= value <= top for value in values):
            yield name, f"expected numbers from 1 to {top}"
    for taxonomy, codes in creative.categories.items():
        texts = tuple(f"{taxonomy}:{code}" for code in codes)
        yield from parts.each(f"categories.{taxonomy}", texts, category_text)
    if not creative.categories:
        yield "categories", "none: some exchanges refuse bids without category", "warning"
    yield from parts.each("domains", creative.domains, host_text)
    if creative.language is not None:
        try:
            language_text(creative.language)
        except ValueError as error:
            yield "language", str(error)


def _urls(creative: Creative) -> Remarks:
    """Every URL field."""
    for name in ("image_url", "landing_page", "vast_tag_url", "error_url", "preview_url"):
        yield from parts.url(name, getattr(creative, name), creative.secure)
    lists: dict[str, tuple[str, ...]] = {
        "click_trackers": creative.click_trackers,
        "impression_urls": creative.impression_urls,
        "media_files": tuple(file.url for file in creative.media_files),
    }
    lists |= {f"tracking.{event}": urls for event, urls in creative.tracking.items()}
    for name, urls in lists.items():
        for index, url in enumerate(urls):
            yield from parts.url(f"{name}[{index}]", url, creative.secure)


def _rendering(creative: Creative, product: Product | None) -> Remarks:
    """What shows only when the ad is put together: macros, its size, its safety."""
    try:
        markup = render.markup(creative, product)
        assets = render.assets(creative, product)
        secure = render.is_secure(creative, product)
        render.click_target(creative, product)
        if creative.preview_url:
            render.expand(creative.preview_url, creative, product, "url")
    except render.MacroError as error:
        yield _field_of(error, creative), str(error)
        return
    if len(markup.encode()) > MARKUP_BYTES_MAX:
        yield "html", f"renders to more than {MARKUP_BYTES_MAX} bytes"
    if creative.secure and not secure:
        yield "secure", "declared secure, but contains http://"
    # A link is filled with its click URL, and so are the macros in it.
    if any(render.has_hole(asset.text) for asset in assets if asset.kind != render.LINK):
        yield "native", "macros of the auction cannot stand in native assets"
    if creative.type == "html" and render.has_unsafe_script(creative.html or ""):
        yield "html", "a product macro or notice URL inside <script> needs |js", "warning"
    if any(CONVERSION_MACRO in text for text in (markup, *(asset.text for asset in assets))):
        told = f"{CONVERSION_MACRO} is filled where a click leads to, by {{click_url}}, only"
        yield creative.type, told, "warning"
    for macro, meant in render.misspelt(markup, *(asset.text for asset in assets)):
        told = f"{macro} is no macro and stays as it is: {{{meant}}} was meant?"
        yield creative.type, told, "warning"
    if "${" in (creative.landing_page or ""):
        yield "landing_page", "clicks are signed before the exchange could fill ${...}", "warning"


def _field_of(error: render.MacroError, creative: Creative) -> str:
    if "product." in str(error):
        return "product"
    return "landing_page" if "landing_page" in str(error) else creative.type
