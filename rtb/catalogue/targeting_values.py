"""Keys and values of targeting, spelled as the decoder spells tokens.

`docs/reference/targeting.md` lists the keys. What cannot be read raises ValueError; who calls adds
the place.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from rtb.base.hosts import ascii_host
from rtb.base.records import Dim

DEVICE_TYPES: Final = {
    "mobile": "1", "pc": "2", "desktop": "2", "ctv": "3", "tv": "3", "phone": "4", "tablet": "5",
    "connected_device": "6", "set_top_box": "7", "ooh": "8",
}  # fmt: skip
CONNECTIONS: Final = {
    "ethernet": "1", "wired": "1", "wifi": "2", "cellular": "3", "2g": "4", "3g": "5", "4g": "6",
    "5g": "7",
}  # fmt: skip
POSITIONS: Final = {
    "unknown": "0", "above_the_fold": "1", "atf": "1", "locked": "2", "below_the_fold": "3",
    "btf": "3", "header": "4", "footer": "5", "sidebar": "6", "full_screen": "7",
}  # fmt: skip
OS_NAMES: Final = {
    "iphone os": "ios", "iphone": "ios", "ipad": "ios", "ipados": "ios", "mac os x": "macos",
    "mac os": "macos", "osx": "macos", "os x": "macos", "chrome os": "chromeos", "apple tv": "tvos",
}  # fmt: skip
_BITS: Final = {"true": "1", "false": "0"}
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_SIZE = re.compile(r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}")
_CATEGORY = re.compile(r"[0-9]{1,4}:[0-9A-Za-z._-]{1,64}")
_REGION = re.compile(r"[a-z]{3}-[0-9a-z]{1,8}")
_HOST = re.compile(r"(?=.{1,253}$)[^\s/:@?#.]{1,63}(\.[^\s/:@?#.]{1,63})*")


def _number(names: Mapping[str, str], top: int) -> Callable[[str], str]:
    """Values of a numbered list, by number or by name."""

    def normalise(text: str) -> str:
        text = names.get(text.lower().replace(" ", "_").replace("-", "_"), text)
        if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= top):
            known = f", or one of {', '.join(names)}" if names else ""
            raise ValueError(f"expected a number up to {top}{known}")
        return str(int(text))

    return normalise


def _one_of(*values: str) -> Callable[[str], str]:
    def normalise(text: str) -> str:
        if text.lower() not in values:
            raise ValueError(f"expected one of {', '.join(values)}")
        return text.lower()

    return normalise


def _text(text: str) -> str:
    return text


def _country(text: str) -> str:
    if not (len(text) == 3 and text.isascii() and text.isalpha()):
        raise ValueError("expected an ISO 3166-1 alpha-3 country such as USA")
    return text.lower()


def _region(text: str) -> str:
    if not _REGION.fullmatch(text.lower()):
        raise ValueError("expected country-region such as USA-CA")
    return text.lower()


def _size(text: str) -> str:
    text = text.lower().replace(" ", "").replace("×", "x")
    if not _SIZE.fullmatch(text):
        raise ValueError("expected a size such as 300x250")
    return text


def category_text(text: str) -> str:
    """A category with its taxonomy, "1:IAB1-2" or "6:123"; "IAB1-2" alone is of taxonomy 1.

    Raises: ValueError.
    """
    if ":" not in text and text[:3].upper() == "IAB":
        text = f"1:{text}"
    if not _CATEGORY.fullmatch(text):
        raise ValueError("expected taxonomy:code such as 6:123, or IAB1-2")
    return text


def host_text(text: str) -> str:
    """A host name, lower case: "https://*.Shop.Example:80/x" gives "shop.example".

    Names in other scripts are encoded (`rtb.base.hosts`).

    Raises: ValueError.
    """
    host = text.lower().split("://", 1)[-1].split("/", 1)[0].split(":", 1)[0]
    host = host.removeprefix("*.").rstrip(".")
    if not _HOST.fullmatch(host):
        raise ValueError("expected a domain such as shop.example")
    return ascii_host(host).lower()


def language_text(text: str) -> str:
    """The primary subtag of a language tag: "pt-BR" gives "pt". Raises: ValueError."""
    subtag = text.replace("_", "-").split("-", 1)[0].lower()
    if not (2 <= len(subtag) <= 3 and subtag.isascii() and subtag.isalpha()):
        raise ValueError("expected a language such as en")
    return subtag


def _os(text: str) -> str:
    return OS_NAMES.get(text.lower(), text.lower())


def _placement(text: str) -> str:
    kind, _, number = text.lower().partition(":")
    if kind not in {"plcmt", "placement", "native"} or not (number.isascii() and number.isdigit()):
        raise ValueError("expected plcmt:1, placement:3 or native:2")
    return f"{kind}:{int(number)}"


def _bit(text: str) -> str:
    text = _BITS.get(text.lower(), text)
    if text not in {"0", "1"}:
        raise ValueError("expected true or false")
    return text


def _pair(separator: str, example: str) -> Callable[[str], str]:
    def normalise(text: str) -> str:
        if separator not in text:
            raise ValueError(f"expected {example}")
        return text

    return normalise


# Key as people write it -> dimension and how its values are spelled.
KEYS: Final[Mapping[str, tuple[Dim, Callable[[str], str]]]] = {
    "exchange": (Dim.EXCHANGE, _text),
    "channel": (Dim.CHANNEL, _one_of("site", "app", "dooh")),
    "media": (Dim.MEDIA, _one_of("banner", "video", "audio", "native")),
    "size": (Dim.SIZE, _size),
    "country": (Dim.COUNTRY, _country),
    "region": (Dim.REGION, _region),
    "city": (Dim.CITY, _text),
    "postcode": (Dim.POSTCODE, _text),
    "metro": (Dim.METRO, _text),
    "device_type": (Dim.DEVICE_TYPE, _number(DEVICE_TYPES, 99)),
    "os": (Dim.OS, _os),
    "browser": (Dim.BROWSER, str.lower),
    "connection": (Dim.CONNECTION, _number(CONNECTIONS, 99)),
    "carrier": (Dim.CARRIER, _text),
    "language": (Dim.LANGUAGE, language_text),
    "publisher": (Dim.PUBLISHER, _text),
    "domain": (Dim.DOMAIN, host_text),
    "bundle": (Dim.BUNDLE, _text),
    "category": (Dim.PAGE_CATEGORY, category_text),
    "keyword": (Dim.KEYWORD, _text),
    "content_language": (Dim.CONTENT_LANGUAGE, language_text),
    "content_genre": (Dim.CONTENT_GENRE, _text),
    "content_rating": (Dim.CONTENT_RATING, _text),
    "audience": (Dim.AUDIENCE, _text),
    "data_segment": (Dim.DATA_SEGMENT, _pair(":", "provider:segment or :segment")),
    "key_value": (Dim.KEY_VALUE, _pair("=", "key=value")),
    "hour_of_week": (Dim.HOUR_OF_WEEK, _number({}, 167)),
    "position": (Dim.POSITION, _number(POSITIONS, 99)),
    "placement": (Dim.PLACEMENT, _placement),
    "tag": (Dim.TAG, _text),
    "interstitial": (Dim.INTERSTITIAL, _bit),
    "rewarded": (Dim.REWARDED, _bit),
    "deal": (Dim.DEAL, _text),
    "venue": (Dim.VENUE, _text),
    "make": (Dim.MAKE, _text),
    "model": (Dim.MODEL, _text),
    "content_channel": (Dim.CONTENT_CHANNEL, _text),
    "user_keyword": (Dim.USER_KEYWORD, _text),
}
ALIASES: Final = {"page_category": "category", "segment": "audience", "zip": "postcode"}
NUMBERS: Final[Mapping[str, Dim]] = {
    "os_version": Dim.OS_VERSION,
    "viewability": Dim.VIEWABILITY,
}
SPECIAL: Final = ("hour", "distance")


def token_text(key: str, value: str) -> tuple[Dim, str]:
    """The dimension and the spelling of one value of a key.

    Raises: ValueError for a key that is none or a value that the key cannot have.
    """
    text = value.strip()
    name = ALIASES.get(key, key)
    if name.startswith("key_value."):
        return Dim.KEY_VALUE, f"{name.removeprefix('key_value.')}={text}"
    if name not in KEYS:
        raise ValueError(f"unknown key {key!r}")
    if not text or any(char < " " for char in text):
        raise ValueError("expected a text that is not empty, without control characters")
    dim, normalise = KEYS[name]
    return dim, normalise(text)
