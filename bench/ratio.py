"""What does a request cost over HTTP, as a multiple of the least that a server can do?

    python -m bench.ratio [--quick] [--rounds N] [--data DIR] [--bodies FILE]

The C floor and `rtb serve --workers 1` answer the same bodies from the same client (wrk, 32
connections) in turn, server on one core, client on the other. The cost is CPU time of the server's
process tree (supervisor, worker, keeper) divided by requests; the keeper, which books behind the
requests, has a figure of its own as well. The ratio is the median over rounds of neighbours in
time. Three variants say what the parts cost: the Starlette route instead of
the fast lane, requests that name nobody (no profile read), and profiles in Redis.
"""

import asyncio
import json
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import options, servers, stages, state
from bench.inprocess import Local
from bench.record import Result
from bench.servers import BenchError, total
from rtb.stores.profiles_lmdb import ProfileStore
from rtb.stores.profiles_redis import RedisProfiles
from rtb.stores.serving import StatePaths

CONNECTIONS = 32
RATIO_MAX = 5.0
ELIGIBLE_MIN = 20.0
BID_SHARE_MIN = 0.5
# The fast lane leaves requests with this header to the Starlette route.
ROUTE_HEADER = "te: trailers"
STAGE_ROUNDS = 7


@dataclass
class Target:
    """A server under load, and what was measured of it."""

    name: str
    pid: int
    port: int
    bodies: Path
    header: str = ""
    keeper: int = 0  # its pid
    keeper_us: list[float] = field(default_factory=list)
    cost_us: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    requests: float = 0.0
    errors: float = 0.0

    def round(self, seconds: float, core: int) -> None:
        """One run of wrk."""
        before_s, booked_s = servers.cpu_s(self.pid), self.booked_s()
        found = servers.wrk(self.port, self.bodies, core, seconds, CONNECTIONS, self.header)
        booked_s = self.booked_s() - booked_s
        spent_s = servers.cpu_s(self.pid) - before_s - booked_s
        if not found["requests"]:
            raise BenchError(f"{self.name}: no request was answered")
        self.cost_us.append(spent_s / found["requests"] * 1e6)
        self.keeper_us.append(booked_s / found["requests"] * 1e6)
        self.rate.append(found["requests"] / found["seconds"])
        self.p99_ms.append(found["p99_ms"])
        self.requests += found["requests"]
        self.errors += found["errors"]

    def booked_s(self) -> float:
        """CPU time of the keeper so far."""
        return servers.cpu_s(self.keeper) if self.keeper else 0.0

    def details(self) -> dict[str, object]:
        """For the result's file."""
        return {
            "cost_us": [round(value, 2) for value in self.cost_us],
            "cost_us_median": round(statistics.median(self.cost_us), 2),
            "requests_per_s": round(statistics.median(self.rate)),
            "p99_ms": round(statistics.median(self.p99_ms), 3),
            "errors": self.errors,
        }


def nobody(bodies: Path) -> Path:
    """The same requests without any identifier of a person."""
    target = bodies.with_suffix(".nobody.jsonl")
    rows = []
    for body in state.read_bodies(bodies):
        request = json.loads(body)
        request.pop("user", None)
        for name in ("ifa", "didsha1", "didmd5", "dpidsha1", "dpidmd5"):
            request.get("device", {}).pop(name, None)
        rows.append(json.dumps(request, separators=(",", ":")))
    target.write_text("\n".join(rows) + "\n")
    return target


async def fill_redis(url: str, data: Path) -> int:
    """Copies the embedded profiles to Redis; how many."""
    profiles = RedisProfiles(url)
    await profiles.start()
    try:
        with ProfileStore.open(StatePaths(data).profiles, readonly=True) as store:
            return await profiles.load(store.items())
    finally:
        await profiles.close()


def start(stack: ExitStack, data: Path, bodies: Path, quick: bool) -> list[Target]:
    """All servers, the floor first, the bidder second."""
    core, other = servers.cores()
    pid, port = stack.enter_context(servers.floor_server(core))
    found = [Target("floor", pid, port, bodies)]
    site = state.site(data, "ratio")
    pid, port = stack.enter_context(servers.bidder(site, core))
    keeper = servers.keeper_pid(site)
    found.append(Target("lane", pid, port, bodies, keeper=keeper))
    if quick:
        return found
    found.append(Target("route", pid, port, bodies, ROUTE_HEADER, keeper))
    found.append(Target("nobody", pid, port, nobody(bodies), keeper=keeper))
    try:
        _, url = stack.enter_context(servers.redis_server(other))
    except BenchError as error:
        print(f"without Redis: {error}")
        return found
    asyncio.run(fill_redis(url, data))
    own = state.site(data, "redis")
    pid, port = stack.enter_context(servers.bidder(own, core, ["--profiles", url], "rtb-redis"))
    found.append(Target("redis", pid, port, bodies, keeper=servers.keeper_pid(own)))
    return found


def main() -> None:
    """The benchmark."""
    chosen = options.parse(__doc__, rounds=7)
    rounds, seconds = (3, 2) if chosen.quick else (chosen.rounds, 3)
    data = chosen.data or state.state()
    bodies = chosen.bodies or state.bodies(data)
    core, other = servers.cores()
    result = Result(
        "ratio",
        "What does a request cost over HTTP, as a multiple of the least that a server can do?",
        {"connections": CONNECTIONS, "rounds": rounds, "seconds": seconds, "client": "wrk",
         "server_core": core, "client_core": other, "workers": 1,
         "body_bytes_mean": round(statistics.mean(map(len, state.read_bodies(bodies))))},
    )  # fmt: skip
    with ExitStack() as stack:
        targets = start(stack, data, bodies, chosen.quick)
        for target in targets:  # warms up, and does not count
            servers.wrk(target.port, target.bodies, other, 1, CONNECTIONS, target.header)
        lane = targets[1]
        before = servers.metrics(lane.port)
        counters = {}
        for _ in range(rounds):
            for target in targets[:2]:
                target.round(seconds, other)
        counters = servers.difference(servers.metrics(lane.port), before)
        for target in targets[2:]:
            for _ in range(max(rounds // 2, 1)):
                target.round(min(seconds, 2), other)
    report(result, targets, counters)
    if not chosen.quick:
        add_stages(result, data, bodies, core)
    result.write(chosen.out)


def report(result: Result, targets: list[Target], counters: dict[str, float]) -> None:
    """Figures from what was measured; `counters` are those of the lane's rounds."""
    floor, lane = targets[:2]
    costs = {target.name: statistics.median(target.cost_us) for target in targets}
    ratio = statistics.median(
        (ours + booked) / least
        for ours, booked, least in zip(lane.cost_us, lane.keeper_us, floor.cost_us, strict=True)
    )
    requests = total(counters, "rtb_requests_total")
    bids = total(counters, "rtb_requests_total", 'outcome="bid"')
    result.add(
        "ratio", "cost of a request, whole tree, as a multiple of the floor", ratio, "x", RATIO_MAX
    )
    result.add("lane_us", "a request, supervisor and worker", costs["lane"], "us")
    booked_us = statistics.median(lane.keeper_us)
    result.add("keeper_us", "and in the keeper, which books it later", booked_us, "us")
    result.add("floor_us", "the C floor", costs["floor"], "us")
    result.add(
        "bid_share", "share of requests with a bid", bids / requests, "", BID_SHARE_MIN, True
    )
    result.add(
        "eligible_mean", "eligible line items a request", counters["rtb_eligible_total"] / requests,
        "", ELIGIBLE_MIN, True,
    )  # fmt: skip
    labels = {
        "route": "a request through the Starlette route",
        "nobody": "a request that names nobody",
        "redis": "a request with its profile in Redis",
    }
    for name, label in labels.items():
        if name in costs:
            result.add(f"{name}_us", label, costs[name], "us")
    result.details = {target.name: target.details() for target in targets}
    result.details["server"] = {
        "requests": requests,
        "by_lane": total(counters, "rtb_http_total", 'event="lane"'),
        "by_route": total(counters, "rtb_http_total", 'event="route"'),
        "scored_mean": round(counters["rtb_scored_total"] / requests, 2),
        "profile_hits": total(counters, "rtb_profile_lookup_total", 'result="hit"'),
        "sampled_stages_us": sampled_stages(counters),
    }


def add_stages(result: Result, data: Path, bodies: Path, core: int) -> None:
    """Where the time goes: each stage in this process, and HTTP as what is left of the whole."""
    options.pin(core)
    with Local(data) as local:
        found = stages.measure(local, state.read_bodies(bodies)[:2000], STAGE_ROUNDS)
    whole_us = next(figure.value for figure in result.figures if figure.name == "lane_us")
    result.add("http_us", "of it: socket, HTTP, loop", whole_us - found.pop("answer"), "us")
    for name, value in found.items():
        result.add(f"{name}_us", f"of it: {stages.LABELS[name]}", value, "us")


def sampled_stages(counters: dict[str, float]) -> dict[str, float]:
    """Mean wall time of the stages of sampled requests, as the server itself counts it.

    The server counts whole microseconds, rounded down: half of one is added back.
    """
    found = {}
    for key, count in counters.items():
        if key.startswith("rtb_stage_duration_seconds_count") and count:
            spent_s = counters[key.replace("_count", "_sum", 1)]
            found[key.split('"')[1]] = round(spent_s / count * 1e6 + 0.5, 2)
    return found


if __name__ == "__main__":
    main()
