"""What the models see of a request: the hashes of some of its tokens.

Readable twin of the same step in `ext/engine/price.pxi`. The ad side lies in the snapshot
(`features`).
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from rtb.base.records import Dim

# Dimensions on the request side of both towers. AUDIENCE is empty without a person, and
# EXCHANGE, AUDIENCE and HOUR_OF_WEEK are not among the request's own tokens.
MODEL_DIMS: Final = frozenset(
    {
        Dim.CHANNEL, Dim.COUNTRY, Dim.REGION, Dim.DEVICE_TYPE, Dim.OS, Dim.BROWSER,
        Dim.CONNECTION, Dim.LANGUAGE, Dim.PUBLISHER, Dim.DOMAIN, Dim.BUNDLE, Dim.PAGE_CATEGORY,
        Dim.MEDIA, Dim.SIZE, Dim.POSITION, Dim.PLACEMENT, Dim.TAG, Dim.INTERSTITIAL, Dim.REWARDED,
    }
)  # fmt: skip
# A request says more at times; the rest would cost time and add little.
FEATURES_MAX: Final = 64


def request_features(
    tokens: np.ndarray, imp: int, exchange: int, segments: Iterable[int], hour: int
) -> np.ndarray:
    """The features of one impression, shape (n,) uint64, n <= FEATURES_MAX.

    Order (sums of floats depend on it): exchange, hour, the request's tokens, the impression's
    tokens, each as they appear, then the person's segments.
    """
    hashes = [exchange, hour]
    for owner in (-1, imp):
        hashes += [
            int(token["hash"])
            for token in tokens
            if token["imp"] == owner and int(token["dim"]) in MODEL_DIMS
        ]
    hashes += segments
    return np.array(hashes[:FEATURES_MAX], dtype=np.uint64)
