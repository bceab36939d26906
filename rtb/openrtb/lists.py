"""The numbered lists of OpenRTB 2.6 / AdCOM 1.0 that a bidder computes with.

Lists that are only compared by number (battr, api, pos, plcmt, ...) need no table here: both the
request and the creative carry the exchange's own numbers.
"""

from enum import IntEnum
from typing import Final


class AuctionType(IntEnum):
    """`at`; 500 and above are an exchange's own."""

    FIRST_PRICE = 1
    SECOND_PRICE_PLUS = 2
    FIXED_PRICE = 3  # deals: the floor is the agreed price


class Protocol(IntEnum):
    """`protocols`: VAST by version, and apart from it whether a wrapper is taken."""

    VAST_1 = 1
    VAST_2 = 2
    VAST_3 = 3
    VAST_1_WRAPPER = 4
    VAST_2_WRAPPER = 5
    VAST_3_WRAPPER = 6
    VAST_4 = 7
    VAST_4_WRAPPER = 8
    DAAST = 9
    DAAST_WRAPPER = 10
    VAST_4_1 = 11
    VAST_4_1_WRAPPER = 12
    VAST_4_2 = 13
    VAST_4_2_WRAPPER = 14
    VAST_4_3 = 15
    VAST_4_3_WRAPPER = 16


class AssetKind(IntEnum):
    """What a native asset is; 1-4 as in `records.ASSET.kind`, 5 and 6 only on the ad's side."""

    UNKNOWN = 0  # more or less than one of title, img, video, data: nothing matches it
    TITLE = 1
    IMG = 2
    VIDEO = 3
    DATA = 4
    LINK = 5  # landing page URL
    TRACKER = 6  # impression tracker URL


class NativeImage(IntEnum):
    """`img.type` of a native asset."""

    ICON = 1
    MAIN = 3


class NativeEvent(IntEnum):
    """`eventtrackers.event` of Native 1.2 (AdCOM's own list is shifted by one)."""

    IMPRESSION = 1
    VIEWABLE_MRC50 = 2
    VIEWABLE_MRC100 = 3
    VIEWABLE_VIDEO50 = 4


TRACK_BY_IMAGE: Final = 1  # `eventtrackers.methods`
CATEGORY_TAXONOMY_DEFAULT: Final = 1  # `cattax` where absent: IAB Content Category 1.0, "IAB1-2"
CURRENCY_DEFAULT: Final = "USD"  # of floors and deals where absent

_VAST: Final[dict[str, tuple[Protocol, Protocol]]] = {
    "1.0": (Protocol.VAST_1, Protocol.VAST_1_WRAPPER),
    "2.0": (Protocol.VAST_2, Protocol.VAST_2_WRAPPER),
    "3.0": (Protocol.VAST_3, Protocol.VAST_3_WRAPPER),
    "4.0": (Protocol.VAST_4, Protocol.VAST_4_WRAPPER),
    "4.1": (Protocol.VAST_4_1, Protocol.VAST_4_1_WRAPPER),
    "4.2": (Protocol.VAST_4_2, Protocol.VAST_4_2_WRAPPER),
    "4.3": (Protocol.VAST_4_3, Protocol.VAST_4_3_WRAPPER),
}


def vast_protocol(version: str, *, wrapper: bool) -> Protocol:
    """The number of a VAST version ("4.2"): a wrapper is another number than an inline document.

    Raises: KeyError for a version that OpenRTB has no number for.
    """
    return _VAST[version][wrapper]


def vast_version(protocol: int) -> tuple[str, bool]:
    """The inverse of `vast_protocol`: version and whether it is a wrapper.

    Raises: KeyError for numbers that are not VAST (DAAST, unknown).
    """
    for version, (inline, wrapper) in _VAST.items():
        if protocol in (inline, wrapper):
            return version, protocol == wrapper
    raise KeyError(protocol)
