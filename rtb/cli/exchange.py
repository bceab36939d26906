"""`rtb exchange`: a simulated exchange that sends traffic to a bidder and auctions its bids.

Exit codes: 0 ran; 1 refused, or nobody listens; 2 wrong usage.
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console

from rtb.sim import exchange
from rtb.sim.feedback import Limits, Route
from rtb.sim.notices import Faults, Habits, Waits
from rtb.sim.options import Options

_NOTICES: Final = "Notices"
_FAULTS: Final = "What goes wrong with notices (shares from 0 to 1)"
_FAULT: Final = Faults()
_WAIT: Final = Waits()
_LIMIT: Final = Limits()


def _notice(text: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(help=text, rich_help_panel=_NOTICES)
    return found


def _fault(text: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(help=text, rich_help_panel=_FAULTS)
    return found


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
    seed: Annotated[
        int, typer.Option(help="Same seed, same requests, rivals, people and faults.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: one JSON object.")] = False,
    notices: Annotated[bool, _notice("Whether the bidder is told what became of its bids.")] = True,
    settle: Annotated[
        str, _notice("What bills, as the bidder's settings say: burl, impression or nurl.")
    ] = "burl",
    invoice: Annotated[Path | None, _notice("Write what was billed to this CSV file.")] = None,
    notice_base: Annotated[
        str, _notice("Send notices to http://host:port instead of where their URLs lead.")
    ] = "",
    win_ms: Annotated[
        float, _notice("Mean wait for win and loss notices; waits are exponential.")
    ] = _WAIT.win_ms,
    show_ms: Annotated[float, _notice("Mean wait from there to the impression.")] = _WAIT.show_ms,
    shown: Annotated[float, _notice("Share of won ads that are shown.")] = Habits().shown,
    clicked: Annotated[
        float | None, _notice("Share of shown ads that are clicked; else as people like them.")
    ] = None,
    bought: Annotated[
        float | None, _notice("Share of clicks that lead to a conversion; else as people like it.")
    ] = None,
    tries: Annotated[
        int, _notice("Times that a notice is sent until it is answered.")
    ] = _LIMIT.tries_max,
    drain_seconds: Annotated[
        float, _notice("Longest wait for notices under way at the end.")
    ] = _LIMIT.drain_s,
    lost: Annotated[float, _fault("Never sent.")] = _FAULT.lost,
    duplicated: Annotated[float, _fault("Sent twice.")] = _FAULT.duplicated,
    reordered: Annotated[float, _fault("Of bids: notices come last first.")] = _FAULT.reordered,
    replayed: Annotated[float, _fault("Sent again much later.")] = _FAULT.replayed,
    replay_ms: Annotated[int, _fault("How much later, in ms.")] = _WAIT.replay_ms,
    late: Annotated[float, _fault("Of what bills: kept back for --late-ms.")] = _FAULT.late,
    late_ms: Annotated[
        int, _fault("More than the bidder's reservation_ttl_s, in ms.")
    ] = _WAIT.late_ms,
    forged: Annotated[float, _fault("Sent besides with another signature.")] = _FAULT.forged,
    altered: Annotated[float, _fault("Sent besides with a price above the bid.")] = _FAULT.altered,
    elsewhere: Annotated[float, _fault("Sent to --other-node.")] = _FAULT.elsewhere,
    other_node: Annotated[str, _fault("Base URL of another node: http://host:port.")] = "",
) -> None:
    """Send bid requests at a given rate, auction the answers, tell the bidder, and sum up."""
    options = Options(
        url=url, rate=rate, seconds=seconds, connections=connections, processes=processes,
        seed=seed, requests=requests, keep_ids=keep_ids, data=data, notices=notices,
        settle=settle, invoice=invoice,
        faults=Faults(lost, duplicated, reordered, elsewhere, forged, altered, replayed, late),
        waits=Waits(win_ms=win_ms, show_ms=show_ms, late_ms=late_ms, replay_ms=replay_ms),
        habits=Habits(shown=shown, clicked=clicked, bought=bought),
        route=Route(notice_base, other_node),
        limits=Limits(tries_max=tries, drain_s=drain_seconds),
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
