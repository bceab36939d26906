"""Runs all benchmarks and shows every figure beside its target: `make bench`.

    python bench/run.py            about ten minutes, into bench/results; the README follows
    python bench/run.py --quick    under a minute, into build/bench/results; nothing is published
    python bench/run.py decide     only some of them

The exit code says whether everything could be measured, not whether targets were met: how fast a
machine is, is not a fault of the code.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import QUICK_RESULTS, RESULTS, ROOT, line, load

# The calm ones first: what heats the machine comes last.
BENCHMARKS = ("kernels", "decide", "stages", "journal", "ledger", "keeper", "ratio", "latency")
QUICK = ("kernels", "decide", "ratio", "latency")


def run(name: str, quick: bool) -> bool:
    """One benchmark, in a process of its own; whether it could be measured."""
    print(f"\n{name}", flush=True)
    start_s = time.monotonic()
    command = [sys.executable, "-m", f"bench.{name}", *(["--quick"] if quick else [])]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    print(f"  ({time.monotonic() - start_s:.0f} s)", flush=True)
    return code == 0


def show(folder: Path, names: list[str]) -> int:
    """The table at the end; how many figures fall short."""
    short = 0
    results = load(folder)
    print(f"\n{'figure':<60} {'measured':>10} {'':<6} {'target':>9}")
    for name in names:
        for figure in results.get(name, {}).get("figures", ()):  # type: ignore[attr-defined]
            if figure["target"] is not None:
                print(line(figure))
                short += figure["holds"] is False
    return short


def main() -> int:
    """Everything, then the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="short, and not published")
    chosen = parser.parse_args()
    names = list(chosen.names or (QUICK if chosen.quick else BENCHMARKS))
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    failed = [name for name in names if not run(name, chosen.quick)]
    short = show(
        QUICK_RESULTS if chosen.quick else RESULTS, [name for name in names if name not in failed]
    )
    print(f"\n{short} figures fall short" if short else "\nall targets are met")
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    if not chosen.quick:
        subprocess.run([sys.executable, "bench/report.py"], cwd=ROOT, check=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
