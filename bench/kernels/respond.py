"""The encoder: answers to realistic requests, from a catalogue of every kind of ad."""

import itertools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.kernels.line import measure, show
from rtb._ext import respond
from rtb._ext.engine import Engine
from rtb.base.links import Links, Sheets
from rtb.base.money import currency_name
from rtb.base.records import Decision, Opportunity
from rtb.catalogue.compile import compile_snapshot
from rtb.catalogue.snapshot import Snapshot
from rtb.exchanges import decode, response
from rtb.exchanges.settings import Exchange
from rtb.notices.notice import Claims
from rtb.notices.tokens import Keyring, Signer
from rtb.notices.urls import Urls
from rtb.server.settings import CONFIGS, load_rates, load_zones, terms_of
from rtb.sim.seed import Parameters, build_catalogue
from rtb.sim.traffic import Traffic

SEED = 7
ANSWERS_COUNT = 64
CANDIDATES_MAX = 1_000
PARAMETERS = Parameters(line_items=1_000, products=5_000, seed=SEED)
NOW_MS = 1_790_000_000_000
KEYS = Keyring(0, {0: b"a secret of this benchmark"})
EXCHANGE = Exchange(name="generic", path="generic", seat="house")

Answer = tuple[Opportunity, Decision, Links, Sheets]


def _snapshot() -> Snapshot:
    arrays, meta = compile_snapshot(build_catalogue(PARAMETERS, NOW_MS // 1000)[1])
    return Snapshot(arrays, meta, "bench")


def _answers(engine: Engine) -> list[Answer]:
    """Facts and decision of requests that are bid on."""
    terms = terms_of(
        EXCHANGE,
        load_rates(CONFIGS / "rates.toml"),
        load_zones(CONFIGS / "zones.toml", NOW_MS),
        CANDIDATES_MAX,
        1,
    )
    found: list[Answer] = []
    for body in Traffic(SEED, 5_000).bodies(20 * ANSWERS_COUNT):
        opportunity, decision = Opportunity(), Decision()
        decode.decode(body, EXCHANGE, opportunity)
        engine.decide(opportunity, None, terms, None, NOW_MS, decision)
        if not decision.data["head"]["nobid"][0]:
            currency = currency_name(int(decision.data["head"]["cur"][0]))
            links = Urls("https://bid.example", EXCHANGE).links(currency)
            found.append((opportunity, decision, links, _signed(decision)))
            if len(found) == ANSWERS_COUNT:
                break
    return found


def _signed(decision: Decision) -> Sheets:
    """Every chosen bid, signed."""
    sheets, signer = Sheets(), Signer(KEYS)
    for number in np.flatnonzero(decision.data["bids"][0]["chosen"]):
        sheets.put(int(number), int(number), signer.sign(Claims(bid=int(number)).pack(), True))
    return sheets


def _encoded(encode: Callable[..., bytes], answer: Answer, arrays: Any) -> bytes:
    opportunity, decision, links, sheets = answer
    return encode(opportunity, decision, arrays, EXCHANGE, links, sheets)


def main() -> None:
    """Prints JSON lines."""
    snapshot = _snapshot()
    answers = _answers(Engine(snapshot))
    arrays = snapshot.arrays
    sizes = [len(_encoded(respond.encode, answer, arrays)) for answer in answers]
    known: dict[str, object] = {
        "answers": len(answers),
        "body_bytes": round(statistics.mean(sizes)),
    }
    following = itertools.cycle(answers)

    def compiled() -> bytes:
        return _encoded(respond.encode, next(following), arrays)

    def readable() -> bytes:
        return _encoded(response.encode, next(following), arrays)

    show("respond", measure(compiled, 2_000, 30), **known)
    show("respond_readable", measure(readable, len(answers), 3), **known)


if __name__ == "__main__":
    main()
