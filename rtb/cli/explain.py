"""`rtb explain`: why a request gets the answer it gets, candidate by candidate."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from rtb.base.errors import ConfigError, StoreError
from rtb.base.reasons import NoBid
from rtb.base.records import Decision, Opportunity
from rtb.cli.console import console, table
from rtb.decide.engine import Trace
from rtb.decide.explain import ImpressionReport, Report, explain
from rtb.profiles import identity
from rtb.server import kernels, settings, worker
from rtb.server.bid import Endpoint
from rtb.server.commit import Payment
from rtb.server.rehearsal import Boards, Rehearsal
from rtb.stores.profiles import Lookup, Record
from rtb.stores.profiles_lmdb import ProfileStore
from rtb.stores.profiles_redis import RedisProfiles
from rtb.stores.serving import StatePaths, read_serving

# Dropped candidates printed for each impression; --json has them all.
DROPS_SHOWN = 20
# Nobody waits for an explanation as an exchange does for a bid.
REDIS_BUDGET_MS = 2_000


def command(
    request: Annotated[
        Path, typer.Argument(help="A bid request as a JSON file; - is standard input.")
    ],
    data: Annotated[Path, typer.Option("--data", help="State directory of the node.")],
    exchange: Annotated[str, typer.Option(help="Path name of the exchange.")] = "generic",
    user: Annotated[
        str | None, typer.Option(help="Take this person (a buyeruid), whoever the request names.")
    ] = None,
    profiles: Annotated[
        str | None, typer.Option(help='Where people are known: "lmdb" or a redis:// URL.')
    ] = None,
    at: Annotated[int | None, typer.Option(help="Decide as of this time, epoch ms.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object with every candidate.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="Settings of the node, as of `rtb serve`.")
    ] = None,
    configs: Annotated[
        Path, typer.Option(help="Folder of rates, zones and exchange settings.")
    ] = settings.CONFIGS,
) -> None:
    """Print, per impression, every candidate with the first rule that dropped it, or its price."""
    body = sys.stdin.buffer.read() if str(request) == "-" else _read(request)
    report = decide(body, data, exchange, user, at, configs, profiles, config)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _print(report)


def decide(
    body: bytes,
    data: Path,
    exchange_name: str,
    user: str | None,
    at_ms: int | None,
    configs: Path,
    profiles: str | None = None,
    config_path: Path | None = None,
) -> Report:
    """The server's decision on a request, traced: the same kernels, snapshot, model and tables;
    and, where a node runs, what it would pay for just now.

    Raises: ConfigError, InputError.
    """
    config = settings.load(config_path)
    profiles = profiles or config.profiles.source
    exchange = settings.load_exchanges(configs / config.files.exchanges).get(exchange_name)
    if exchange is None:
        raise ConfigError(f"no exchange {exchange_name!r} in {configs / config.files.exchanges}")
    now_ms = at_ms if at_ms is not None else time.time_ns() // 1_000_000
    paths = StatePaths(data.resolve())
    file = read_serving(paths) or worker.newest(paths)
    if file is None:
        raise ConfigError(f"{data}: no snapshot: run `rtb import` or `rtb seed`")
    compiled = kernels.load()
    serving = worker.open_serving(paths, file, compiled)
    opportunity, decision, trace = Opportunity(), Decision(), Trace()
    if not compiled.decode(body, 0, exchange, opportunity):
        kernels.decode_reference(body, 0, exchange, opportunity)
    rates = settings.load_rates(configs / config.files.rates)
    terms = settings.terms_of(
        exchange,
        rates,
        settings.load_zones(configs / config.files.zones, now_ms),
        config.bid.candidates_max,
        serving.generation,
    )
    # The same bids; but who had no chance is looked at too, to say what else stands in the way.
    terms.data["exhaustive"] = 1
    keys = _keys(opportunity, exchange.name, user)
    # Of another time nobody knows what was lent and shown.
    boards = Boards.copied(paths) if at_ms is None else None
    with contextlib.ExitStack() as stack:
        found = _in_lmdb(stack, paths, keys) if profiles == "lmdb" else _in_redis(profiles, keys)
        if boards is None:
            serving.engine.decide(opportunity, found.record, terms, None, now_ms, decision, trace)
        else:
            rehearsal = Rehearsal(boards, serving.arrays, now_ms, found.stored)
            overlay = rehearsal.overlay()
            record = rehearsal.view(keys, found.key, found.record, found.counts)
            serving.engine.decide(opportunity, record, terms, overlay, now_ms, decision, trace)
            payment = Payment(exchange.claim_key, exchange.multiplier_max, rates)
            rehearsal.pay(opportunity, decision, serving.engine, payment)
    report = explain(opportunity, decision, trace, serving.snapshot)
    tmax_ms = int(opportunity.facts["head"]["tmax_ms"][0])
    if Endpoint(0, exchange).budget_ns(tmax_ms) < config.bid.bid_min_ms * 1_000_000:
        report = replace(report, outcome=NoBid.TMAX_TOO_SHORT.name.lower())
    return replace(report, live=boards is not None)


def _keys(opportunity: Opportunity, exchange: str, user: str | None) -> list[bytes]:
    """Keys to look up; none under a privacy signal, whoever was asked for."""
    if opportunity.facts["head"]["privacy"][0]:
        return []
    if user is not None:
        return [identity.buyer_key(user.encode())]
    return identity.keys_of(opportunity, exchange.encode())


class _Found(NamedTuple):
    """A person's record and its key; counts as `Caps.view` has them, or where they are stored."""

    record: Record | None = None
    key: bytes | None = None
    counts: Sequence[Record | None] = ()
    stored: Callable[[int], Record | None] | None = None


def _in_lmdb(stack: contextlib.ExitStack, paths: StatePaths, keys: list[bytes]) -> _Found:
    if not paths.profiles.exists():
        return _Found(stored=lambda person: None)
    store = ProfileStore.open(paths.profiles, readonly=True)
    stack.callback(store.close)
    record, key = store.find_key(keys)
    return _Found(record, key, stored=store.counts)


def _in_redis(url: str, keys: list[bytes]) -> _Found:
    """By the server's own client, without its hurry."""

    async def ask() -> _Found:
        store = RedisProfiles(url, budget_ms=REDIS_BUDGET_MS)
        await store.start()
        answer: asyncio.Future[_Found] = asyncio.get_running_loop().create_future()

        def answered(
            outcome: Lookup,
            record: bytes | None,
            key: bytes | None,
            counts: Sequence[bytes | None],
        ) -> None:
            if not answer.done():
                if outcome > Lookup.MISS:
                    answer.set_exception(StoreError(f"{url}: {outcome.name.lower()}"))
                else:
                    answer.set_result(_Found(record, key, counts))

        try:
            deadline_ns = time.monotonic_ns() + REDIS_BUDGET_MS * 1_000_000
            store.find_counts(keys, deadline_ns, answered)
            return await answer
        finally:
            await store.close()

    return asyncio.run(ask()) if keys else _Found()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error}") from error


def _print(report: Report) -> None:
    printed = console()
    person = "without a profile" if report.contextual else "with a profile"
    printed.print(
        f"[bold]{report.outcome}[/] in {report.currency or '-'}, {person}, "
        f"generation {report.generation} ({report.snapshot[:12]})"
    )
    printed.print(
        "with budgets, pacing and caps as they are now" if report.live
        else "budgets, pacing and caps are not looked at: no node runs here, or --at was given"
    )  # fmt: skip
    for imp in report.imps:
        printed.print(f"\n[bold]impression {imp.imp}[/]")
        _print_bids(printed, imp)
        _print_drops(printed, imp)


def _print_bids(printed: Console, imp: ImpressionReport) -> None:
    if not imp.bids:
        printed.print("  no candidate is left")
        return
    rows = table("line item", "creative", "", "deal", "ctr", "cvr", "value", "price", "floor")
    for line in imp.bids:
        rows.add_row(
            line.line_item,
            line.creative,
            line.outcome,
            line.deal,
            f"{line.ctr:.5f}",
            f"{line.cvr:.4f}",
            line.value_cpm,
            line.price_cpm,
            line.floor_cpm,
        )
    printed.print(rows)


def _print_drops(printed: Console, imp: ImpressionReport) -> None:
    if not imp.dropped:
        return
    counts = ", ".join(f"{reason} {count}" for reason, count in imp.counts().items())
    printed.print(f"  dropped: {counts}")
    rows = table("line item", "creative", "first rule that failed")
    # Those that came furthest tell most.
    for line in imp.dropped[::-1][:DROPS_SHOWN]:
        rows.add_row(line.line_item, line.creative, line.reason)
    printed.print(rows)
    if len(imp.dropped) > DROPS_SHOWN:
        printed.print(f"  and {len(imp.dropped) - DROPS_SHOWN} more; --json shows all")
