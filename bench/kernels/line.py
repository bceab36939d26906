"""How a kernel is measured and told: one JSON line each."""

import json
import statistics
import time
from collections.abc import Callable

ROUNDS = 15


def measure(call: Callable[[], object], count: int, rounds: int = ROUNDS) -> list[float]:
    """CPU nanoseconds of one call, the loop's own cost included, one value a round."""
    found = []
    for _ in range(rounds + 1):
        start_ns = time.thread_time_ns()
        for _ in range(count):
            call()
        found.append((time.thread_time_ns() - start_ns) / count)
    return found[1:]  # the first warms up


def show(kernel: str, rounds_ns: list[float], **parameters: object) -> None:
    """Prints the line."""
    row = {
        "kernel": kernel,
        "median_ns": round(statistics.median(rounds_ns), 1),
        "best_ns": round(min(rounds_ns), 1),
        **parameters,
    }
    print(json.dumps(row))
