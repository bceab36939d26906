"""Keys of a person: under which names the profile stores hold a record or a link to it.

    b:<buyeruid>              our own id for the person, as the exchange echoes it
    u:<exchange>:<user.id>    the exchange's id
    i:<ifa>                   device id, lower case; all zeros mean "none"
    e:<source>:<id>           an extended id; the source is a domain, lower case

The order is the order of trust (`records.IdKind`): the first key that is found names the person,
unless the record of another one opts out.
`ext/identity.pyx` is the compiled twin of `keys_of`.
"""

import hashlib
import json
from typing import Final

from rtb.base.records import IDS_MAX, IdKind, Opportunity

# LMDB takes keys of at most 511 bytes; longer identifiers are stored by their digest.
KEY_BYTES_MAX: Final = 256
# How many identifiers of one request are tried: all that are decoded, for each may be that of a no.
KEYS_MAX: Final = IDS_MAX


def buyer_key(buyeruid: bytes) -> bytes:
    """Key of our own id."""
    return _bounded(b"b:" + buyeruid)


def user_key(exchange: bytes, user_id: bytes) -> bytes:
    """Key of `user.id`, which means something on one exchange only."""
    return _bounded(b"u:" + exchange + b":" + user_id)


def device_key(ifa: bytes) -> bytes | None:
    """Key of a device id; None when it is empty or all zero (tracking is limited)."""
    if not ifa.strip(b"0-"):
        return None
    return _bounded(b"i:" + ifa.lower())


def eid_key(source: bytes, eid: bytes) -> bytes | None:
    """Key of an extended id; None when its source is not a plain name."""
    if not source or b":" in source:
        return None
    return _bounded(b"e:" + source.lower() + b":" + eid)


def _bounded(key: bytes) -> bytes:
    """The key itself, or a digest of it when it is longer than stores take."""
    if len(key) <= KEY_BYTES_MAX:
        return key
    return key[:1] + b"#" + hashlib.blake2b(key, digest_size=24).hexdigest().encode()


def keys_of(opportunity: Opportunity, exchange: bytes) -> list[bytes]:
    """The keys of an opportunity's person, most trusted first, at most KEYS_MAX.

    exchange: the name of the exchange, which holds no colon.
    Returns: an empty list when the request names nobody, or only unreadable identifiers.
    """
    facts = opportunity.facts[0]
    rows = facts["ids"][: int(facts["head"]["ids_count"])]
    found: list[tuple[int, bytes]] = []
    for row in rows:
        key = _key(
            int(row["kind"]),
            opportunity.slice(int(row["off"]), int(row["len"])),
            opportunity.slice(int(row["source_off"]), int(row["source_len"])),
            exchange,
        )
        if key is not None:
            found.append((int(row["kind"]), key))
    found.sort(key=lambda pair: pair[0])
    return [key for _, key in found[:KEYS_MAX]]


def _key(kind: int, raw: bytes, raw_source: bytes, exchange: bytes) -> bytes | None:
    """The key of one identifier, given as raw JSON string contents."""
    text = unescape(raw)
    if not text:
        return None
    if kind == IdKind.BUYERUID:
        return buyer_key(text)
    if kind == IdKind.USER:
        return user_key(exchange, text)
    if kind == IdKind.IFA:
        return device_key(text)
    if kind == IdKind.EID:
        return eid_key(unescape(raw_source), text)
    return None


def unescape(raw: bytes) -> bytes:
    """JSON string contents as UTF-8; empty when they are not valid."""
    if b"\\" not in raw:
        return raw
    try:
        text = json.loads(b'"' + raw + b'"', strict=False)
        return text.encode() if isinstance(text, str) else b""
    except ValueError:  # bad escape, bad UTF-8, or a lone surrogate
        return b""
