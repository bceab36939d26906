"""Options that benchmarks share."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from bench.record import QUICK_RESULTS, RESULTS


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    quick: bool
    rounds: int
    data: Path | None
    bodies: Path | None
    out: Path


def parse(text: str | None, rounds: int = 5) -> Options:
    """Reads the command line; `text` is the docstring of the benchmark."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short; written beside the published")
    parser.add_argument("--rounds", type=int, default=rounds, help="measurements to take")
    parser.add_argument("--data", type=Path, help="a state directory instead of the seeded one")
    parser.add_argument("--bodies", type=Path, help="requests, a JSON document a line")
    parser.add_argument("--out", type=Path, help="folder of the result")
    found = parser.parse_args()
    out = found.out or (QUICK_RESULTS if found.quick else RESULTS)
    return Options(found.quick, found.rounds, found.data, found.bodies, out)


def pin(core: int) -> None:
    """Keeps this process on one core."""
    os.sched_setaffinity(0, {core})
