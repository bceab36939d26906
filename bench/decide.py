"""What does a decision cost, and how does it grow with the catalogue?

    python -m bench.decide [--quick]

The same requests are decided over seeded catalogues of several sizes: CPU time of `engine.decide`
alone, call included, with profiles and reasons. It is what a loop that decodes, reads the profile
and decides costs beyond one that stops before the decision, so that the engine meets its input as
the decoder left it.
"""

import os

from bench import options, state
from bench.inprocess import Local, timed
from bench.record import Result
from bench.servers import cores

SIZES = (1_000, 10_000, 100_000)
REQUESTS = 1_000
DECIDE_US_MAX = 8.0
GROWTH_MAX = 3.0


def main() -> None:
    """The benchmark."""
    chosen = options.parse(__doc__, rounds=20)
    rounds = 5 if chosen.quick else chosen.rounds
    sizes = SIZES[:2] if chosen.quick else SIZES
    # Every size decides the requests of the middle one.
    bodies_path = chosen.bodies or state.bodies(state.state())
    bodies = state.read_bodies(bodies_path)[:REQUESTS]
    available = os.sched_getaffinity(0)
    result = Result(
        "decide",
        "What does a decision cost, and how does it grow with the catalogue?",
        {"requests": len(bodies), "rounds": rounds},
    )
    costs: dict[int, float] = {}
    for size in sizes:
        os.sched_setaffinity(0, available)
        data = state.state(line_items=size)
        options.pin(cores()[0])
        with Local(data) as local:
            before, after = timed([local.steps(bodies, 3), local.steps(bodies, 4)], rounds)
            spread = after - before
            heads = local.heads(local.cases(bodies))
            result.parameters["kernels"] = local.kernels.name
        costs[size] = spread.us
        limit = DECIDE_US_MAX if size == 10_000 else None
        result.add(f"decide_{size}_us", f"decide, {size:,} line items", spread.us, "us", limit)
        result.details[str(size)] = {
            "median_ns": round(spread.median_ns),
            "best_ns": round(spread.best_ns),
            **{name: round(value, 3) for name, value in heads.items()},
        }
    if SIZES[2] in costs:
        growth = costs[SIZES[2]] / costs[SIZES[0]]
        label = "decide, 100,000 line items against 1,000"
        result.add("growth", label, growth, "x", GROWTH_MAX)
    result.write(chosen.out)


if __name__ == "__main__":
    main()
