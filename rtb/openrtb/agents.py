"""Operating system and browser of a device, from structured hints or the user-agent string.

All rules are substrings of ASCII-lowered text, tried in the order in which they stand: the first
that occurs wins. The order is the knowledge: Edge and Opera also say Chrome, Chrome also says
Safari, Windows Phone also says Android, iPhones say "like Mac OS X".
"""

import re
from typing import Final

from rtb.openrtb.reading import ascii_lower

# A user agent is looked at this far: real ones have 100 to 300 characters (fault A7).
AGENT_CHARS_MAX: Final = 512

_VERSION = re.compile(r"[0-9._]*", re.ASCII)

# device.os or sua.platform.brand -> our name. An unknown name stays as it is.
OS_NAMES: Final = (
    ("windows phone", "windows phone"),
    ("xbox", "xbox"),
    ("playstation", "playstation"),
    ("android", "android"),
    ("tvos", "tvos"),
    ("apple tv", "tvos"),
    ("watchos", "watchos"),
    ("ipados", "ios"),
    ("iphone", "ios"),
    ("ipad", "ios"),
    ("mac", "macos"),
    ("os x", "macos"),
    ("windows", "windows"),
    ("win32", "windows"),
    ("chrome os", "chromeos"),
    ("chromeos", "chromeos"),
    ("chromium os", "chromeos"),
    ("tizen", "tizen"),
    ("webos", "webos"),
    ("web0s", "webos"),
    ("roku", "roku"),
    ("fire os", "fireos"),
    ("fireos", "fireos"),
    ("kaios", "kaios"),
    ("harmony", "harmonyos"),
    ("linux", "linux"),
    ("ubuntu", "linux"),
    ("ios", "ios"),
)

# device.ua -> our name, and the mark after which the version stands ("" = none is read).
OS_AGENTS: Final = (
    ("windows phone", "windows phone", "windows phone "),
    ("xbox", "xbox", ""),
    ("playstation", "playstation", ""),
    ("roku", "roku", "roku/dvp-"),
    ("tizen", "tizen", "tizen "),
    ("web0s", "webos", ""),
    ("webos", "webos", ""),
    ("appletv", "tvos", ""),
    ("apple tv", "tvos", ""),
    ("kaios", "kaios", "kaios/"),
    ("android", "android", "android "),
    ("iphone", "ios", " os "),
    ("ipad", "ios", " os "),
    ("ipod", "ios", " os "),
    ("; cros ", "chromeos", ""),
    ("(x11; cros", "chromeos", ""),
    ("windows nt", "windows", "windows nt "),
    ("windows", "windows", ""),
    ("macintosh", "macos", "mac os x "),
    ("mac os x", "macos", "mac os x "),
    ("linux", "linux", ""),
    ("darwin", "ios", ""),  # apps that use the system's own HTTP client
)

# Brand of sua.browsers -> our name.
BROWSER_BRANDS: Final = (
    ("edge", "edge"),
    ("opera", "opera"),
    ("samsung", "samsung"),
    ("brave", "brave"),
    ("vivaldi", "vivaldi"),
    ("yandex", "yandex"),
    ("duckduckgo", "duckduckgo"),
    ("firefox", "firefox"),
    ("chrom", "chrome"),
    ("android webview", "chrome"),
    ("safari", "safari"),
)

# device.ua -> our name.
BROWSER_AGENTS: Final = (
    ("edg/", "edge"),
    ("edge/", "edge"),
    ("edga/", "edge"),
    ("edgios/", "edge"),
    ("opr/", "opera"),
    ("opera", "opera"),
    ("opt/", "opera"),
    ("samsungbrowser", "samsung"),
    ("yabrowser", "yandex"),
    ("ucbrowser", "uc"),
    ("vivaldi", "vivaldi"),
    ("duckduckgo", "duckduckgo"),
    ("silk/", "silk"),
    ("firefox/", "firefox"),
    ("fxios/", "firefox"),
    ("crios/", "chrome"),
    ("chrome/", "chrome"),
    ("chromium/", "chrome"),
    ("msie ", "ie"),
    ("trident/", "ie"),
    ("safari/", "safari"),
)


def os_name(name: str) -> str:
    """Our name of an operating system that a field names: "iPhone OS" -> "ios"; unknown: as is."""
    lowered = ascii_lower(name)
    return _first(OS_NAMES, lowered) or lowered


def os_of_agent(agent: str) -> tuple[str, str]:
    """Operating system and its version as text, from a user agent; "" where it does not say."""
    lowered = ascii_lower(agent[:AGENT_CHARS_MAX])
    for mark, name, version_mark in OS_AGENTS:
        if mark in lowered:
            rest = lowered.partition(version_mark)[2] if version_mark else ""
            version = _VERSION.match(rest)
            return name, version[0] if version else ""
    return "", ""


def browser_of_brands(brands: list[str]) -> str:
    """Browser from the brands of sua.browsers; "" when none is known.

    The rules are tried in order, each over all brands: "Chromium" stands beside "Microsoft Edge".
    Grease such as "Not.A/Brand" (letters not...brand) is nobody's brand.
    """
    names = [ascii_lower(brand) for brand in brands if not is_grease(brand)]
    for mark, browser in BROWSER_BRANDS:
        if any(mark in name for name in names):
            return browser
    return ""


def is_grease(brand: str) -> bool:
    """Whether a brand is there only to keep parsers honest: its letters are not...brand."""
    letters = "".join(char for char in ascii_lower(brand) if "a" <= char <= "z")
    return letters.startswith("not") and letters.endswith("brand")


def browser_of_agent(agent: str) -> str:
    """Browser from a user agent; "" when no rule knows it."""
    return _first(BROWSER_AGENTS, ascii_lower(agent[:AGENT_CHARS_MAX]))


def _first(rules: tuple[tuple[str, str], ...], text: str) -> str:
    for mark, name in rules:
        if mark in text:
            return name
    return ""
