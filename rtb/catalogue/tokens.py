"""Token hashes for the catalogue: the compiled function where it is built, else its twin."""

import os
from functools import lru_cache

from rtb.base.records import Dim

if os.environ.get("RTB_PURE") == "1":
    from rtb.base.hashing import token_hash
else:
    try:
        from rtb._ext.hashing import token_hash
    except ImportError:
        # The compiler is no part of the bid path: slower is still right here.
        from rtb.base.hashing import token_hash

__all__ = ["ad_key", "hash_of", "owner_key", "token_hash"]


@lru_cache(maxsize=1 << 17)
def hash_of(dim: Dim, value: str) -> int:
    """The token hash of a text in a dimension. Values repeat, so they are remembered."""
    return token_hash(int(dim), value.encode())


def ad_key(kind: str, name: str) -> int:
    """What money, caps and claims know a campaign, a line item or a creative by.

    Caps alone know an advertiser so; for all else he has his `owner_key`.
    """
    return hash_of(Dim.AD, f"{kind}:{name}")


def owner_key(advertiser: str) -> int:
    """What the snapshot, the books and people's opt-outs know an advertiser by."""
    return hash_of(Dim.OPT_OUT, advertiser)
