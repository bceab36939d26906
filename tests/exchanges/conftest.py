"""Fixtures for the wire: decoders under test, settings as shipped, and the corpus beside us."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rtb._ext import wire
from rtb.base.records import Opportunity
from rtb.exchanges import decode as reference
from rtb.exchanges.readable import readable
from rtb.exchanges.settings import Exchange, load_all

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"

Decode = Callable[[bytes, Exchange, Opportunity], None]


def compiled(body: bytes, exchange: Exchange, opportunity: Opportunity) -> None:
    """The compiled decoder as the server calls it, made comparable byte by byte.

    It writes only the rows it counts, and tokens that do not stand in the body have no text: the
    rest is cleared here, and texts are looked up in the reference by dimension, owner and hash.
    """
    opportunity.facts.view(np.uint8)[:] = 0
    if not wire.decode(body, 0, exchange, opportunity):
        reference.decode(body, exchange, opportunity)
        return
    named = Opportunity()
    reference.decode(body, exchange, named)
    texts = {
        (int(row["dim"]), int(row["imp"]), int(row["hash"])): named.slice(row["off"], row["len"])
        for row in named.facts[0]["tokens"][: named.facts[0]["head"]["tokens_count"]]
    }
    tokens = opportunity.facts[0]["tokens"][: opportunity.facts[0]["head"]["tokens_count"]]
    for row in tokens:
        text = texts.get((int(row["dim"]), int(row["imp"]), int(row["hash"])), b"?")
        row["off"], row["len"] = len(opportunity.text), len(text)
        opportunity.text += text


# Every decoder runs the same tests; the first one is the reference.
DECODERS: dict[str, Decode] = {"reference": reference.decode, "compiled": compiled}


@pytest.fixture(scope="session")
def exchanges() -> dict[str, Exchange]:
    """The exchanges of configs/, by path."""
    return load_all(ROOT / "configs" / "exchanges")


@pytest.fixture(scope="session")
def generic(exchanges: dict[str, Exchange]) -> Exchange:
    """The exchange that works for any."""
    return exchanges["generic"]


@pytest.fixture(scope="session", params=DECODERS)
def decode(request: pytest.FixtureRequest) -> Decode:
    """Each decoder in turn."""
    return DECODERS[request.param]


@pytest.fixture
def facts(decode: Decode, generic: Exchange) -> Callable[..., dict]:
    """Decodes a request (object or bytes) and returns readable facts."""

    def read(body: object, exchange: Exchange = generic) -> dict:
        opportunity = Opportunity()
        decode(
            body if isinstance(body, bytes) else json.dumps(body).encode(), exchange, opportunity
        )
        return readable(opportunity)

    return read


@pytest.fixture
def imp_facts(facts: Callable[..., dict]) -> Callable[..., dict]:
    """Decodes one impression inside the smallest request and returns its facts."""

    def read(imp: object, **request: object) -> dict:
        return facts({"id": "r", "imp": [imp], **request})["imps"][0]

    return read


def corpus_lines(name: str) -> list[bytes]:
    """Bodies of a corpus file; skips the test where the corpus is absent."""
    path = SHARED / "corpus" / name
    if not path.exists():
        pytest.skip(f"no corpus beside the checkout: {name}")
    return gzip.decompress(path.read_bytes()).splitlines()


@pytest.fixture(scope="session")
def corpus() -> list[bytes]:
    """1,114 bid requests by other people."""
    return corpus_lines("requests.jsonl.gz")


@pytest.fixture(scope="session")
def malformed() -> list[bytes]:
    """74 faulty bid requests."""
    return corpus_lines("malformed.jsonl.gz")


@pytest.fixture(scope="session")
def response_schema() -> dict:
    """JSON Schema of a 2.6 response; skips where absent."""
    path = SHARED / "protocol" / "schemas" / "openrtb-2.6-202606-bid-response.schema.json"
    if not path.exists():
        pytest.skip("no schemas beside the checkout")
    return json.loads(path.read_text())
