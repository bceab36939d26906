"""Where does the time of a request go? CPU time of each stage, in one process, without sockets.

    python -m bench.stages [--quick]

Stages are measured as differences between loops that go one step further each, over the same
bodies, so that every stage meets the caches as the one before left them.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import options, state
from bench.inprocess import Local, timed
from bench.record import Result
from bench.servers import cores

# What the bid path may grow by for tokens, journal and counters together.
MONEY_US_MAX = 2.0
LABELS = {
    "decode": "decode: bytes to facts",
    "gather": "gather: keys and one profile read",
    "counts": "gather: what was shown to the person, for caps",
    "decide": "decide: target, exclude, score, price, select",
    "pay": "commit: lease, caps, journal record, signature",
    "encode": "commit: pre-rendered markup to an answer",
    "rest": "clock, counters, hand-over",
    "answer": "the whole request, without HTTP",
}


def measure(local: Local, bodies: Sequence[bytes], rounds: int) -> dict[str, float]:
    """Microseconds of each stage of `LABELS` a request."""
    passes = [local.steps(bodies, depth) for depth in (1, 2, 3, 4, 5, 6)]
    whole = timed([*passes, _answer_pass(local, bodies)], rounds)
    steps = [whole[0], *(after - before for before, after in itertools.pairwise(whole)), whole[-1]]
    return {name: step.us for name, step in zip(LABELS, steps, strict=True)}


def _answer_pass(local: Local, bodies: Sequence[bytes]) -> Callable[[], int]:
    """A pass through what the server calls for each request."""
    answer, endpoint, clock = local.bidder.answer, local.endpoint, time.monotonic_ns

    def run() -> int:
        for body in bodies:
            now_ns = clock()
            answer(endpoint, body, 0, now_ns, now_ns, print)
        local.money.flush()
        return len(bodies)

    return run


def main() -> None:
    """The benchmark."""
    chosen = options.parse(__doc__, rounds=15)
    options.pin(cores()[0])
    data = chosen.data or state.state()
    bodies_path: Path = chosen.bodies or state.bodies(data)
    bodies = state.read_bodies(bodies_path)[:2000]
    rounds = 3 if chosen.quick else chosen.rounds
    with Local(data) as local:
        result = Result(
            "stages",
            "Where does the time of a request go?",
            {"line_items": local.line_items_count, "bodies": len(bodies), "rounds": rounds,
             "kernels": local.kernels.name},
        )  # fmt: skip
        cost = measure(local, bodies, rounds)
        heads = local.heads(local.cases(bodies[:500]))
    money_us = cost["counts"] + cost["pay"]
    result.add("money_us", "what money and caps add to a request", money_us, "us", MONEY_US_MAX)
    for name, label in LABELS.items():
        result.add(f"{name}_us", label, cost[name], "us")
    result.details = {name: round(value, 3) for name, value in heads.items()}
    result.write(chosen.out)


if __name__ == "__main__":
    main()
