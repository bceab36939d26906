"""The world that benchmarks measure in: a seeded state directory and seeded request bodies, cached.

Both come from the project's own commands, `rtb seed` and `rtb traffic`; anyone can make the same.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from bench.record import ROOT
from bench.servers import BUILD, BenchError, rtb_command

SEED: Final = 7
LINE_ITEMS: Final = 10_000
PRODUCTS: Final = 50_000
PROFILES: Final = 100_000
BODIES: Final = 5_000


def state(line_items: int = LINE_ITEMS, products: int = PRODUCTS, profiles: int = PROFILES) -> Path:
    """The state directory of a seeded catalogue; made on the first call.

    Its snapshot is compiled again after the compiler was changed: a figure must not come from
    another's layout. (`rtb seed` itself sees when the world that it seeds was changed.)
    Raises: BenchError when it cannot be made.
    """
    data = BUILD / f"state-{line_items}-{profiles}"
    _rtb(
        "seed", "--data", data, "--line-items", line_items, "--products", products,
        "--profiles", profiles, "--seed", SEED,
    )  # fmt: skip
    compiled = data / "compiled"
    newest_s = max(path.stat().st_mtime for path in (ROOT / "rtb" / "catalogue").glob("*.py"))
    seeded_s = (data / "seed.json").stat().st_mtime
    if max(seeded_s, compiled.stat().st_mtime if compiled.exists() else 0.0) < newest_s:
        _rtb("import", data / "catalogue", "--data", data)
        compiled.touch()
    return data


def bodies(data: Path, count: int = BODIES) -> Path:
    """Bid requests for a state directory, a JSON document a line; made on the first call.

    They are made again after the directory was seeded anew, or their generator was changed.
    Raises: BenchError when they cannot be made.
    """
    target = data / f"traffic-{SEED}-{count}.jsonl"
    sources = [data / "seed.json", *(ROOT / "rtb" / "sim").glob("*.py")]
    newest_s = max(path.stat().st_mtime for path in sources)
    if not target.exists() or target.stat().st_mtime < newest_s:
        fresh = target.with_suffix(".new")
        _rtb("traffic", "--data", data, "--count", count, "--seed", SEED, "--out", fresh)
        fresh.replace(target)
    return target


def site(data: Path, name: str) -> Path:
    """A state directory of its own for one server: snapshots copied, profiles shared.

    Servers of one directory would share a board, and what a benchmark publishes would stay in it.
    """
    fresh = BUILD / f"site-{name}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for kind in ("snapshots", "models"):
        if (data / kind).exists():
            shutil.copytree(data / kind, fresh / kind)
    (fresh / "profiles").symlink_to((data / "profiles").resolve())
    return fresh


def read_bodies(path: Path) -> list[bytes]:
    """The bodies of a file."""
    return [line for line in path.read_bytes().split(b"\n") if line]


def _rtb(*arguments: object) -> None:
    found = subprocess.run(
        rtb_command(*(str(argument) for argument in arguments)),
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise BenchError(f"rtb {arguments[0]}: {found.stderr.strip()[-500:] or found.returncode}")
