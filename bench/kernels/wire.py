"""The request decoder: realistic traffic and, where it lies beside us, the corpus.

Beside it stand two general JSON parsers, which only make objects of the same bytes, and the
readable twin. `share` is the part of the requests that the compiled decoder reads without a doubt.
"""

import gzip
import itertools
import statistics
from collections.abc import Callable

import msgspec
import orjson

from bench.kernels.line import measure, show
from bench.record import ROOT
from rtb._ext import wire
from rtb.base.records import Opportunity
from rtb.exchanges import decode as readable
from rtb.exchanges.settings import Exchange
from rtb.sim.traffic import Traffic

SEED = 7
BODIES_COUNT = 300
CORPUS = ROOT.parent / "shared" / "corpus" / "requests.jsonl.gz"
EXCHANGE = Exchange(name="generic", path="generic")


def per_body(call: Callable[[bytes], object], bodies: list[bytes], rounds: int) -> list[float]:
    """Nanoseconds of one call, over bodies in turn: the same one again and again is no traffic."""
    following = itertools.cycle(bodies)
    return measure(lambda: call(next(following)), len(bodies), rounds)


def compare(name: str, bodies: list[bytes]) -> None:
    """Prints a line a decoder."""
    opportunity = Opportunity()

    def compiled(body: bytes) -> bool:
        return wire.decode(body, 0, EXCHANGE, opportunity)

    known: dict[str, object] = {
        "requests": len(bodies),
        "body_bytes": round(statistics.mean(map(len, bodies))),
    }
    rounds_ns = per_body(compiled, bodies, 200)
    parsers = {
        "msgspec": per_body(msgspec.json.Decoder().decode, bodies, 40),
        "orjson": per_body(orjson.loads, bodies, 40),
    }
    ratios = {
        f"of_{parser}": round(min(rounds_ns) / min(times), 3) for parser, times in parsers.items()
    }
    share = sum(map(compiled, bodies)) / len(bodies)
    show(f"wire_{name}", rounds_ns, **known, share=round(share, 4), **ratios)
    for parser, times in parsers.items():
        show(f"wire_{name}_{parser}", times, **known)
    slow = per_body(lambda body: readable.decode(body, EXCHANGE, opportunity), bodies[:100], 3)
    show(f"wire_{name}_readable", slow, **known)


def main() -> None:
    """Prints JSON lines."""
    compare("traffic", list(Traffic(SEED, 5_000).bodies(BODIES_COUNT)))
    if CORPUS.exists():
        compare("corpus", gzip.decompress(CORPUS.read_bytes()).splitlines())


if __name__ == "__main__":
    main()
