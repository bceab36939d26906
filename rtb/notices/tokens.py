"""Tokens: the claims of a bid, and for each kind of notice a tag that only we can make.

    token   base64url(claims, 72 bytes) + base64url(tag, 8 bytes): 96 + 11 characters, no padding
    tags    keyed BLAKE2b-512 of the claims is cut into eight tags, a slot for each kind; a second
            digest, told apart by its person string, has a slot for each VAST event

A tag is good for its slot only, so the URL of a start is never that of a complete, and a pixel
never that of a bill. As 72 is divisible by 3, the text of the claims is the same in every token of
a bid: a bid is signed into one *sheet*, claims first, then the tags in order of slots, and a token
is two pieces of it.

Slots, sizes and person strings are in URLs that live for weeks: they never change.
`ext/notices.pyx` is the compiled twin of `Signer`.
"""

import binascii
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from rtb.base.errors import ConfigError, InvariantError
from rtb.base.events import CLAIMS, CLAIMS_VERSION, Kind, VideoEvent
from rtb.base.links import CLAIMS_CHARS, TAG_CHARS
from rtb.notices.notice import Refusal

CLAIMS_BYTES: Final = CLAIMS.itemsize
# One forgery in 2^64 tries, each of which is a request that we count.
TAG_BYTES: Final = 8
TOKEN_CHARS: Final = CLAIMS_CHARS + TAG_CHARS
GROUP_SLOTS: Final = 8

# Slot 7 is reserved.
SLOTS: Final[Mapping[Kind, int]] = {
    Kind.WIN: 0,
    Kind.BILL: 1,
    Kind.LOSS: 2,
    Kind.IMPRESSION: 3,
    Kind.CLICK: 4,
    Kind.VIEW: 5,
    Kind.CONVERSION: 6,
}

_NOTICES: Final = b"rtb notices"
_EVENTS: Final = b"rtb vast events"
_TARGETS: Final = b"rtb targets"
_TARGET_BYTES: Final = 8

SECRET_BYTES_MIN: Final = 16
SECRET_BYTES_MAX: Final = blake2b.MAX_KEY_SIZE
_KEY_IDS: Final = range(256)


def slot_of(kind: Kind, event: int = 0) -> int:
    """Which tag a notice needs. Raises: KeyError for kinds that no URL brings."""
    return GROUP_SLOTS + VideoEvent(event) if kind == Kind.VIDEO else SLOTS[kind]


class Prepared(NamedTuple):
    """Digests with a secret taken in: a copy of one costs half of a new one."""

    notices: blake2b
    events: blake2b
    targets: blake2b


class Keyring:
    """The secrets by id: the current one signs, all are accepted, others may not be guessed at.

    To rotate, add a secret under a new id and make it current; drop the old one when its last
    notice has expired. An id is never used again for another secret.
    """

    def __init__(self, current: int, secrets: Mapping[int, bytes]) -> None:
        """Raises: ConfigError for ids and secrets that cannot be."""
        if current not in secrets:
            raise ConfigError(f"no secret has the id {current} - at `$.notices.current_secret`")
        for key, secret in secrets.items():
            if key not in _KEY_IDS:
                raise ConfigError(f"ids are 0 to 255 - at `$.notices.secrets.{key}`")
            if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
                size = f"{SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes"
                raise ConfigError(f"a secret has {size} - at `$.notices.secrets.{key}`")
        self.current = current
        self._prepared = {key: _prepared(secret) for key, secret in secrets.items()}

    def prepared(self, key: int) -> Prepared | None:
        """The digests of an id, to be copied; None for an id that we do not have."""
        return self._prepared.get(key)


def keyring(current: int, variables: Mapping[int, str], environ: Mapping[str, str]) -> Keyring:
    """The keyring of secrets that stand, as UTF-8, in environment variables.

    Raises: ConfigError naming the variable, never its content.
    """
    secrets = {key: environ.get(name, "").encode() for key, name in variables.items()}
    for key, name in variables.items():
        if not secrets[key]:
            raise ConfigError(f"no environment variable {name} - at `$.notices.secrets.{key}`")
    return Keyring(current, secrets)


def _prepared(secret: bytes) -> Prepared:
    return Prepared(
        blake2b(key=secret, person=_NOTICES),
        blake2b(key=secret, person=_EVENTS),
        blake2b(key=secret, person=_TARGETS, digest_size=_TARGET_BYTES),
    )


def _digest(prepared: blake2b, text: bytes) -> bytes:
    state = prepared.copy()
    state.update(text)
    return state.digest()


# -- signing ---------------------------------------------------------------------------------------


class Signer:
    """Signs claims with the current secret of a keyring."""

    def __init__(self, keyring: Keyring) -> None:
        prepared = keyring.prepared(keyring.current)
        if prepared is None:
            raise InvariantError("the current secret is not on its keyring")
        self._key = keyring.current
        self._prepared = prepared

    def sign(self, claims: bytes, events: bool = False) -> bytes:
        """The sheet of a bid: its claims, the tags of all kinds, and those of VAST events if asked.

        Shapes: claims 72 bytes; sheet 96 + 8 * 11 characters, 8 * 11 more with events.
        Raises: InvariantError for claims of another size, or that name another secret.
        """
        if len(claims) != CLAIMS_BYTES or claims[1] != self._key:
            raise InvariantError("not claims of the current secret")
        digests = _digest(self._prepared.notices, claims)
        if events:
            digests += _digest(self._prepared.events, claims)
        tags = (digests[at : at + TAG_BYTES] for at in range(0, len(digests), TAG_BYTES))
        return _text(claims) + b"".join(_text(tag) for tag in tags)


def conversion_token(claims: bytes, keyring: Keyring) -> bytes:
    """The token that reports conversions of a bid, for who was told by a click which bid it is.

    Shapes: claims 72 bytes. Raises: InvariantError for claims of a secret that is not on the ring.
    """
    prepared = keyring.prepared(claims[1])
    if prepared is None:
        raise InvariantError(f"no secret has the id {claims[1]}")
    start = SLOTS[Kind.CONVERSION] * TAG_BYTES
    tag = _digest(prepared.notices, claims)[start : start + TAG_BYTES]
    return _text(claims) + _text(tag)


def _text(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


# -- verifying -------------------------------------------------------------------------------------


def opened(token: bytes, slot: int, keyring: Keyring) -> bytes | Refusal:
    """The claims of a token that is good for a slot, or why it is not. Any bytes are accepted."""
    data = _bytes(token)
    if data is None or data[0] != CLAIMS_VERSION:
        return Refusal.MALFORMED
    claims, tag = data[:CLAIMS_BYTES], data[CLAIMS_BYTES:]
    prepared = keyring.prepared(claims[1])
    if prepared is None:
        return Refusal.FORGED
    group, place = divmod(slot, GROUP_SLOTS)
    if _is_tag(_digest(prepared[group], claims), place, tag):
        return claims
    return Refusal.WRONG_KIND if _is_any_tag(prepared, claims, tag) else Refusal.FORGED


def _is_tag(digest: bytes, place: int, tag: bytes) -> bool:
    expected = digest[place * TAG_BYTES : (place + 1) * TAG_BYTES]
    return hmac.compare_digest(expected, tag)


def _is_any_tag(prepared: Prepared, claims: bytes, tag: bytes) -> bool:
    """Whether this is the tag of some slot: then the claims are genuine, and the path is not."""
    digests = (_digest(prepared.notices, claims), _digest(prepared.events, claims))
    return any(_is_tag(digest, place, tag) for digest in digests for place in range(GROUP_SLOTS))


def _bytes(token: bytes) -> bytes | None:
    """The 80 bytes of a token; None for any spelling but ours, so a token has one text only."""
    if len(token) != TOKEN_CHARS:
        return None
    try:
        data = binascii.a2b_base64(token.translate(_STANDARD) + b"=", strict_mode=True)
    except binascii.Error:
        return None
    return data if _text(data) == token else None


_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


# -- click targets ---------------------------------------------------------------------------------


def target_hash(url: str, key: int, keyring: Keyring) -> int:
    """The claim that clicks go to a landing page; never 0.

    key: id of the secret that signs the claims.
    Raises: InvariantError for an id that is not on the keyring.
    """
    prepared = keyring.prepared(key)
    if prepared is None:
        raise InvariantError(f"no secret has the id {key}")
    return int.from_bytes(_digest(prepared.targets, url.encode()), "little") or 1
