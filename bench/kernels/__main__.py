"""What do the compiled kernels cost alone?

    python -m bench.kernels [--quick]

Each module beside this one prints a JSON line a kernel; this gathers them into one result.
"""

import json
import subprocess
import sys
from pathlib import Path

from bench import options
from bench.record import ROOT, Result
from bench.servers import BenchError, cores, pinned

SCORE_1000_US_MAX = 15.0
NOT_KERNELS = {"__init__", "__main__", "line"}
# What `--quick` runs: the ones with a promise.
QUICK = {"score", "head"}


def rows(module: str) -> list[dict[str, object]]:
    """The lines that one module prints. Raises: BenchError when it fails."""
    found = subprocess.run(
        pinned([sys.executable, "-m", f"bench.kernels.{module}"], cores()[0]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if found.returncode:
        raise BenchError(f"bench.kernels.{module}: {found.stderr.strip()[-500:]}")
    return [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    """The benchmark."""
    chosen = options.parse(__doc__)
    modules = sorted(
        path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_KERNELS
    )
    if chosen.quick:
        modules = [name for name in modules if name in QUICK]
    result = Result("kernels", "What do the compiled kernels cost alone?", {"modules": modules})
    for module in modules:
        for row in rows(module):
            kernel = str(row.get("kernel", module))
            result.details[kernel] = row
            median_ns = row.get("median_ns")
            if isinstance(median_ns, int | float):
                limit = SCORE_1000_US_MAX if kernel == "score_1000" else None
                result.add(f"{kernel}_us", kernel, median_ns / 1000, "us", limit)
    result.write(chosen.out)


if __name__ == "__main__":
    main()
