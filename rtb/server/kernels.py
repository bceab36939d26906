"""The compiled pieces of the bid path, or their readable twins when `RTB_PURE=1` asks for them.

There is no silent way back: a worker whose compiled modules are missing does not start.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rtb.base.errors import ConfigError
from rtb.base.links import Links, Sheets
from rtb.base.records import Decision, Opportunity
from rtb.decide import engine as readable_engine
from rtb.exchanges import decode as reference
from rtb.exchanges import response
from rtb.exchanges.settings import Exchange
from rtb.notices import tokens
from rtb.notices.tokens import Keyring
from rtb.profiles import identity
from rtb.server import commit, front, head
from rtb.stores import board, caps
from rtb.stores.journal import READABLE, Kernel

CURE = "compiled modules are missing: run `make setup` (or `python setup.py build_ext --inplace`)"

Decode = Callable[[bytes, int, Exchange, Opportunity], bool]
Encode = Callable[[Opportunity, Decision, Mapping[str, Any], Exchange, Links, Sheets], bytes]


@dataclass(frozen=True)
class Kernels:
    """What `server.bid` calls for each request.

    decode  (data, start of the body, exchange, opportunity) -> read; False: in doubt, ask
            `decode_reference`, which reads it or raises InputError
    keys    (opportunity, exchange name) -> keys of the person, most trusted first
    engine  class of the decision engine
    encode  (opportunity, decision, snapshot arrays, exchange, links, sheets) -> body
    commit  class of the commit step; signer: of notices; caps: of counts for frequency caps
    journal the functions of the journal
    path    the usual request in one step, for a bidder; None: the bidder takes every step itself
    front   class of the exchanges' connections
    """

    name: str
    plain_bid: Callable[[bytes], tuple[bytes, int] | None]
    missing: Callable[[bytes], int]
    decode: Decode
    keys: Callable[[Opportunity, bytes], list[bytes]]
    engine: Any
    encode: Encode
    meter: Any
    commit: Any
    signer: Callable[[Keyring], Any]
    caps: Any
    journal: Kernel
    path: Callable[[Any], Any] | None
    front: Any


def load() -> Kernels:
    """The kernels of this process.

    Raises: ConfigError with the cure when compiled modules are missing.
    """
    return pure() if os.environ.get("RTB_PURE") == "1" else compiled()


def decode_reference(data: bytes, start: int, exchange: Exchange, opportunity: Opportunity) -> bool:
    """Reads the request in `data[start:]` with the reference decoder. Raises: InputError."""
    reference.decode(data[start:] if start else data, exchange, opportunity)
    return True


def pure() -> Kernels:
    """The readable twins."""

    return Kernels(
        name="pure",
        plain_bid=head.plain_bid,
        missing=head.missing,
        decode=decode_reference,
        keys=identity.keys_of,
        engine=readable_engine.Engine,
        encode=response.encode,
        meter=board.Meter,
        commit=commit.Commit,
        signer=tokens.Signer,
        caps=caps.Caps,
        journal=READABLE,
        path=None,
        front=front.Front,
    )


def compiled() -> Kernels:
    """The compiled modules."""
    try:
        from rtb._ext import caps as fast_caps
        from rtb._ext import commit as fast_commit
        from rtb._ext import engine as fast_engine
        from rtb._ext import front as fast_front
        from rtb._ext import head as fast_head
        from rtb._ext import identity as fast_identity
        from rtb._ext import journal as fast_journal
        from rtb._ext import meter, path, respond, wire
        from rtb._ext import notices as fast_notices
    except ImportError as error:
        raise ConfigError(f"{CURE}; {error}") from error

    return Kernels(
        name="compiled",
        plain_bid=fast_head.plain_bid,
        missing=fast_head.missing,
        decode=wire.decode,
        keys=fast_identity.keys_of,
        engine=fast_engine.Engine,
        encode=respond.encode,
        meter=meter.Meter,
        commit=fast_commit.Commit,
        signer=fast_notices.Signer,
        caps=fast_caps.Caps,
        journal=Kernel(fast_journal.Pen, fast_journal.scan, fast_journal.find),
        path=path.Path,
        front=fast_front.Front,
    )
