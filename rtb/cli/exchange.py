"""`rtb exchange`: a simulated exchange that sends traffic to a bidder and auctions its bids.

Exit codes: 0 ran; 1 refused, or nobody listens; 2 wrong usage.
"""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from rtb.sim import exchange
from rtb.sim.exchange import Options


def command(
    url: Annotated[
        str, typer.Option(help="The bidder: http://host:port/openrtb2/<exchange>/bid.")
    ] = "http://127.0.0.1:8080/openrtb2/generic/bid",
    rate: Annotated[float, typer.Option(help="Requests a second, whatever comes back.")] = 1000.0,
    seconds: Annotated[float, typer.Option(help="How long; 0 until Ctrl-C.")] = 10.0,
    connections: Annotated[int, typer.Option(help="Most connections, opened on demand.")] = 64,
    processes: Annotated[int, typer.Option(help="Processes that share the rate.")] = 1,
    requests: Annotated[
        Path | None, typer.Option(help="Replay these requests, one a line, instead of generating.")
    ] = None,
    keep_ids: Annotated[
        bool, typer.Option(help="Send requests with the ids that they have, again and again.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Seeded directory whose people come by.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same requests and rivals.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: one JSON object.")] = False,
) -> None:
    """Send bid requests at a given rate, auction the answers, and say how the bidder did."""
    options = Options(
        url=url, rate=rate, seconds=seconds, connections=connections, processes=processes,
        seed=seed, requests=requests, keep_ids=keep_ids, data=data,
    )  # fmt: skip
    console = Console()
    with exchange.watched(exchange.is_terminal() and not as_json, console) as watch:
        found = exchange.run(options, watch)
    for line in exchange.lines(found):
        typer.echo(line)
    warning = exchange.lagging(found)
    if warning:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        typer.echo(msgspec.json.encode(found))
