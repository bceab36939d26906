"""`rtb serve`: the bid workers of one node, supervised."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from rtb.base.errors import ConfigError
from rtb.keeper import exports, process, tail
from rtb.server import kernels, money, settings
from rtb.server.supervise import Supervisor
from rtb.stores.serving import StatePaths

Data = Annotated[Path, typer.Option("--data", help="State directory: catalogue, models, profiles.")]


def command(
    data: Data,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Bid workers, about one a core.")] = None,
    profiles: Annotated[
        str | None, typer.Option(help='"lmdb" or redis://[:password@]host:port/db.')
    ] = None,
    ledger: Annotated[
        str | None,
        typer.Option(help="Books of money, for all nodes: postgresql://user:password@host/db."),
    ] = None,
    node: Annotated[int | None, typer.Option(help="Number of this node in a cluster.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Where the world reaches our notice URLs.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings over the defaults of configs/bidder.toml.")
    ] = None,
    configs: Annotated[
        Path, typer.Option(help="Folder of rates, zones and exchange settings.")
    ] = settings.CONFIGS,
    quiet: Annotated[bool, typer.Option(help="Only warnings and errors.")] = False,
) -> None:
    """Serve bids on POST /openrtb2/<exchange>/bid until SIGTERM."""
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # That a database is away is said once, by who wanted it, and not with every connection's trace.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    if not data.is_dir():  # a slip of the pen would make one, and wait there for ever
        raise ConfigError(f"no such directory: `rtb import` or `rtb seed` makes it - at `{data}`")
    found = settings.load(config)
    given = {"host": host, "port": port, "workers": workers}
    server = _override(found.server, given)
    chosen = msgspec.structs.replace(
        found,
        server=server,
        profiles=_override(found.profiles, {"source": profiles}),
        money=_override(found.money, {"ledger": ledger, "node": node}),
        notices=_override(found.notices, {"base_url": base_url}),
    )
    # Faults of configuration show here, once, and not in every worker.
    exchanges = settings.load_exchanges(configs / chosen.files.exchanges)
    rates = settings.load_rates(configs / chosen.files.rates)
    for doubt in settings.without_rate(exchanges, rates):
        typer.echo(f"rtb: {doubt}", err=True)
    if chosen.notices.base_url.startswith("http:"):
        typer.echo(
            "rtb: notices.base_url is not https, so ads on secure pages have links of ours that "
            "those pages may not call",
            err=True,
        )
    settings.load_zones(configs / chosen.files.zones, 0)
    settings.check_profiles(chosen.profiles.source)
    paths = StatePaths(data.resolve())
    try:
        money.check(chosen, exchanges, paths, os.environ)
    except ConfigError as error:  # of options and settings together
        raise ConfigError(f"{config or settings.CONFIGS / 'bidder.toml'}: {error}") from error
    paths.ledger.parent.mkdir(parents=True, exist_ok=True)
    process.check(_keeper(chosen, paths))
    if chosen.journal.export:
        exports.check()
    found_kernels = kernels.load()
    tail.check(paths.journals, chosen.money.node, found_kernels.journal)

    def be_keeper() -> None:
        process.main(_keeper(chosen, paths), paths, exchanges, found_kernels.journal)

    def be_exporter() -> None:
        os.nice(exports.NICE)
        exports.main(paths, chosen.money.node, exchanges, found_kernels.journal)

    supervisor = Supervisor(chosen, configs, paths, found_kernels, be_keeper, be_exporter)
    raise typer.Exit(supervisor.run())


def _keeper(config: settings.Settings, paths: StatePaths) -> process.Options:
    """What the settings of a node say of its keeper."""
    money = config.money
    return process.Options(
        ledger=money.ledger or paths.ledger_url,
        profiles=config.profiles.source,
        node=money.node,
        turn_ms=money.turn_ms,
        lease_ms=money.lease_ms,
        batch_records=money.batch_records,
        remember_s=money.remember_s,
        pace_ms=money.pace_ms,
        pacing_law=money.pacing_law,
        nice=money.nice,
        keep_s=config.journal.keep_days * 86_400,
        export_every_s=config.journal.export_every_s if config.journal.export else 0,
    )


def _override(section: settings.T, given: Mapping[str, object]) -> settings.T:
    """A section with the options that were given, checked as the file would be."""
    values = msgspec.structs.asdict(section)  # type: ignore[arg-type]
    values |= {key: value for key, value in given.items() if value is not None}
    try:
        return msgspec.convert(values, type(section))
    except msgspec.ValidationError as error:
        raise typer.BadParameter(str(error)) from error
