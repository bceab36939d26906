"""What a benchmark leaves behind: figures with their targets, and where they were measured.

A result is one JSON file. Everything that is published is made from these files by
`bench/report.py`, so a figure without a file does not exist.
"""

import datetime
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "bench" / "results"
# Short runs are for whoever changes a benchmark; what is published comes from whole ones.
QUICK_RESULTS: Final = ROOT / "build" / "bench" / "results"

Json = Mapping[str, object]


@dataclass(frozen=True)
class Figure:
    """One measured number.

    name: stable, unit last ("p99_ms"); label: the same for people
    limit: what the project promises; None when nothing is promised
    at_least: the promise is a lower bound
    """

    name: str
    label: str
    value: float
    unit: str = ""
    limit: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether the promise is kept; None when there is none."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def as_dict(self) -> dict[str, object]:
        """As the file has it."""
        target = None
        if self.limit is not None:
            target = f"{'>=' if self.at_least else '<='} {self.limit:g}"
        return {
            "name": self.name,
            "label": self.label,
            "value": float(f"{self.value:.6g}"),
            "unit": self.unit,
            "target": target,
            "holds": self.holds,
        }


def _spent() -> tuple[float, float, float]:
    """Seconds until now: of the clock, of CPU time on the whole machine, of CPU time of ours."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    ticks = [int(value) for value in fields[1:9]]
    # user nice system idle iowait irq softirq steal; steal is another machine's doing
    busy = sum(ticks) - ticks[3] - ticks[4]
    return time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


@dataclass
class Result:
    """The answer of one benchmark."""

    name: str
    question: str
    parameters: dict[str, object]
    figures: list[Figure] = field(default_factory=list)
    details: dict[str, object] = field(default_factory=dict)
    began: tuple[float, float, float] = field(default_factory=_spent)

    def add(
        self,
        name: str,
        label: str,
        value: float,
        unit: str = "",
        limit: float | None = None,
        at_least: bool = False,
    ) -> None:
        """One more figure."""
        self.figures.append(Figure(name, label, value, unit, limit, at_least))

    def others_share(self) -> float:
        """Share of the machine's CPU time that processes which are not ours took meanwhile.

        Ours are this process and those that it started and that have ended.
        """
        wall_s, all_s, ours_s = (
            after - before for after, before in zip(_spent(), self.began, strict=True)
        )
        return max(all_s - ours_s, 0.0) / max(wall_s * (os.cpu_count() or 1), 1e-9)

    def as_dict(self) -> dict[str, object]:
        """The whole file."""
        return {
            "name": self.name,
            "question": self.question,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": asdict(machine()) | {"others_share": round(self.others_share(), 3)},
            "python": platform.python_version(),
            "parameters": self.parameters,
            "figures": [figure.as_dict() for figure in self.figures],
            "details": self.details,
        }

    def write(self, folder: Path) -> Path:
        """Writes the file, prints its figures, and returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(self.as_dict(), indent=1) + "\n")
        for figure in self.figures:
            print(line(figure.as_dict()))
        return path


@dataclass(frozen=True)
class Machine:
    """Where figures come from."""

    cpu: str
    cores: int
    kernel: str
    memory_gb: float


def machine() -> Machine:
    """This machine."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Machine(
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,  # whatever this process was pinned to
        kernel=platform.release(),
        memory_gb=round(pages * size / 2**30, 1),
    )


def _cpu_model() -> str:
    for row in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = row.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()


def commit() -> str:
    """The commit measured, with "+" when files under it had changes; "" outside a checkout."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "rtb", "ext")
    return head + ("+" if head and changed else "")


def _git(*arguments: str) -> str:
    found = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() if found.returncode == 0 else ""


def line(figure: Json) -> str:
    """One figure for a terminal."""
    verdict = {True: "holds", False: "FALLS SHORT", None: ""}[figure["holds"]]  # type: ignore[index]
    return (
        f"  {figure['label']!s:<58} {number(figure['value']):>10} {figure['unit']!s:<6} "
        f"{figure['target'] or '':>9} {verdict}"
    ).rstrip()


def number(value: object) -> str:
    """A figure with as many digits as it deserves."""
    if not isinstance(value, int | float):
        raise TypeError(f"not a number: {value!r}")
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 1:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:.4f}".rstrip("0").rstrip(".")


def load(folder: Path) -> dict[str, dict[str, object]]:
    """All results of a folder by name."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        found[str(result["name"])] = result
    return found
