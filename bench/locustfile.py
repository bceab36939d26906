"""Load by Locust, for whoever has Locust at hand: checked answers, and an exit code from an SLO.

    rtb traffic --data DIR --count 5000 --seed 7 --out bodies.jsonl
    RTB_BODIES=bodies.jsonl locust -f bench/locustfile.py --headless --host http://127.0.0.1:8080 \\
        -u 50 -r 50 -t 30s --processes 2 --csv out --html out.html

Environment:
    RTB_BODIES    bid requests, a JSON document a line (required)
    RTB_SLO       limits; bench/slo.toml by default
    RTB_EXCHANGE  path name of the exchange; "generic" by default
    RTB_RATE      requests a second of one user; 20 by default, 0 is as fast as they are answered
    RTB_SHAPE     ramp, overload or spike instead of -u, -r and -t
    RTB_RESULT    where to write a JSON summary

Exit code 1 when the run misses the SLO. One Locust process reaches some 4,000 requests a second:
keep it below half of that (`--processes`), else the figures are Locust's own. For latencies that
count, use `python -m bench.latency`.
"""

import itertools
import json
import logging
import os
import random
import sys
import tomllib
from pathlib import Path
from typing import Any

from locust import FastHttpUser, LoadTestShape, constant_throughput, events, task
from locust.env import Environment
from locust.runners import WorkerRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.answers import Body, fault, missed

log = logging.getLogger("bench.locust")

EXCHANGE = os.environ.get("RTB_EXCHANGE", "generic")
RATE = float(os.environ.get("RTB_RATE", "20"))
SLO = Path(os.environ.get("RTB_SLO", Path(__file__).with_name("slo.toml")))
# Shapes: (until second, users); the rate of one user is RTB_RATE.
SHAPES = {
    "ramp": ((10, 10), (20, 25), (30, 50), (40, 100), (50, 100)),
    "overload": ((10, 50), (20, 100), (30, 250), (40, 500), (50, 50)),
    "spike": ((15, 20), (20, 400), (35, 20)),
}


def read_bodies() -> list[Body]:
    """The bodies of RTB_BODIES. Raises: SystemExit when there are none."""
    name = os.environ.get("RTB_BODIES", "")
    if not name:
        raise SystemExit("set RTB_BODIES to a file of bid requests, a JSON document a line")
    lines = Path(name).read_bytes().split(b"\n")
    found = [Body.of(line) for line in lines if line]
    if not found:
        raise SystemExit(f"{name}: no bodies")
    return found


class Exchange(FastHttpUser):
    """One connection of an exchange."""

    wait_time = constant_throughput(RATE) if RATE else lambda self: 0
    connection_timeout = network_timeout = 5.0

    def on_start(self) -> None:
        """Every user begins elsewhere in the file."""
        bodies = BODIES[:]
        random.shuffle(bodies)
        self._bodies = itertools.cycle(bodies)

    @task
    def bid(self) -> None:
        """One bid request."""
        body = next(self._bodies)
        content: Any = body.content  # bytes go out as they are; Locust's types know texts only
        with self.client.post(
            f"/openrtb2/{EXCHANGE}/bid",
            data=content,
            headers={"content-type": "application/json", "x-openrtb-version": "2.6"},
            name=f"bid:{EXCHANGE}:{body.kind}",
            catch_response=True,
        ) as answer:
            took_ms = answer.request_meta["response_time"]
            wrong = fault(body, answer.status_code, answer.content or b"")
            if answer.status_code == 200:
                COUNTS["bids"] += 1
            if took_ms > body.tmax_ms:
                COUNTS["late"] += 1
            if wrong:
                answer.failure(wrong)
            else:
                answer.success()


BODIES = read_bodies()
COUNTS = {"bids": 0, "late": 0}
# Counts of all worker processes, on the master.
TOTALS = {"bids": 0, "late": 0}

if os.environ.get("RTB_SHAPE"):
    STEPS = SHAPES[os.environ["RTB_SHAPE"]]

    class Shape(LoadTestShape):
        """Users over time."""

        def tick(self) -> tuple[int, float] | None:
            """(users, users started a second) now; None at the end."""
            for until_s, users in STEPS:
                if self.get_run_time() < until_s:
                    return users, users
            return None


@events.report_to_master.add_listener
def send_counts(client_id: str, data: dict[str, Any]) -> None:
    """Worker: what was counted since the last report."""
    data["rtb"] = dict(COUNTS)
    for name in COUNTS:
        COUNTS[name] = 0


@events.worker_report.add_listener
def take_counts(client_id: str, data: dict[str, Any]) -> None:
    """Master: what a worker counted."""
    for name, count in data.get("rtb", {}).items():
        TOTALS[name] += count


def summary(environment: Environment) -> dict[str, float]:
    """The figures that the SLO limits."""
    stats = environment.stats.total
    requests = max(stats.num_requests, 1)
    bids, late = (COUNTS[name] + TOTALS[name] for name in ("bids", "late"))
    return {
        "requests": stats.num_requests,
        "rate": stats.total_rps,
        "p50_ms": float(stats.get_response_time_percentile(0.5) or 0),
        "p99_ms": float(stats.get_response_time_percentile(0.99) or 0),
        "in_time": 1 - late / requests,
        "failures": stats.num_failures / requests,
        "bid_share": bids / requests,
    }


@events.quitting.add_listener
def judge(environment: Environment, **_: object) -> None:
    """Sets the exit code from the SLO."""
    if isinstance(environment.runner, WorkerRunner):
        return
    found = summary(environment)
    try:
        lines = missed(found, tomllib.loads(SLO.read_text()))
    except (OSError, ValueError) as error:
        lines = [f"{SLO}: {error}"]
    for line in lines:
        log.error("SLO missed: %s", line)
    if target := os.environ.get("RTB_RESULT"):
        Path(target).write_text(json.dumps({**found, "missed": lines}, indent=1) + "\n")
    environment.process_exit_code = 1 if lines else 0
