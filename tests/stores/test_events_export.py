"""Journals as Parquet: every kind of record, once under one name, whatever happens in between."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from rtb.base.errors import StoreError
from rtb.base.events import (
    BID,
    CONVERSION,
    LINK,
    MULTIPLIER_ONE,
    NO_PRICE,
    NOTICE,
    ClaimFlag,
    Kind,
    PriceState,
    VideoEvent,
    bid_id,
)  # fmt: skip
from rtb.base.money import currency_code, currency_name
from rtb.base.records import Media
from rtb.catalogue.snapshot import Snapshot
from rtb.stores import events_export
from rtb.stores.events_export import Exporter, progress_of, waiting
from rtb.stores.events_names import Exchange, Names
from rtb.stores.events_schema import FIELDS, VERSION
from rtb.stores.journal_read import segments
from rtb.stores.journal_write import Journal
from tests.decide import worlds
from tests.keeper.records import ADX, bid_body, claims, notice_body
from tests.stores.journals import COMPILED, SMALL, Disk

T = 1_790_000_000  # 2026-09-21 14:13:20 UTC
NODE, ITEM = 5, 7
KEY = ADX.claim_key
NAMES = Names({KEY: Exchange("adx", Kind.BILL, empty_is_bid=True)})


class Shelf:
    """A state directory with journals, and what is exported of them."""

    def __init__(self, folder: Path) -> None:
        self.journals, self.events = folder / "journals", folder / "events"

    def write(self, worker: int, *records: tuple[Kind | int, bytes], salt: int = 1) -> None:
        """A run of a worker: a segment of its own."""
        world = Disk(salt=salt).world()
        with Journal.open(self.journals, worker, SMALL, COMPILED, world) as journal:
            for kind, body in records:
                journal.append(kind, body)
                journal.turn()

    def exporter(self, names: Names = NAMES, batch_records: int = 3) -> Exporter:
        return Exporter(self.journals, self.events, 0, COMPILED, names, batch_records)

    def files(self) -> list[str]:
        """Names of what was exported, without the journal's identity."""
        paths = sorted(self.events.glob("*/*.parquet"))
        parts = [path.stem.split("-") for path in paths]
        return [
            f"{path.parent.name}/{node}-{worker}-{int(first)}"
            for path, (node, worker, _, first) in zip(paths, parts, strict=True)
        ]

    def rows(self) -> list[dict[str, Any]]:
        """All rows of all files."""
        return [
            row
            for path in sorted(self.events.glob("*/*.parquet"))
            for row in pq.read_table(path).to_pylist()
        ]

    def waiting(self) -> int:
        """How many segments are not exported."""
        return sum(len(one.segments) for one in waiting(self.journals, self.events, COMPILED))


@pytest.fixture(name="shelf")
def shelf_fixture(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def bid_of(number: int, worker: int = 0) -> np.ndarray:
    """Claims of a bid of this node."""
    found = claims(bid_id(T, NODE, worker, number), ITEM, 2_000)
    found["media"], found["creative"], found["key"] = Media.BANNER, 0xC0, 3
    return found


def sold(number: int, worker: int = 0) -> list[tuple[Kind, bytes]]:
    """A bid that is won and billed."""
    said = bid_of(number, worker)
    return [
        (Kind.BID, bid_body(said, 2_000, T * 1000)),
        (Kind.WIN, notice_body(said, T * 1000 + 50, 1_500)),
        (Kind.BILL, notice_body(said, T * 1000 + 60, 1_500)),
    ]


def notice(number: int, **said: int) -> bytes:
    """Any notice."""
    found = np.zeros(1, NOTICE)
    found["claims"], found["time_ms"] = bid_of(number), T * 1000 + 70
    found["price_micros"] = found["min_to_win_micros"] = found["discount_micros"] = NO_PRICE
    found["multiplier_e6"] = MULTIPLIER_ONE
    for name, value in said.items():
        found[name] = value
    return found.tobytes()


def test_every_kind_of_record(shelf: Shelf) -> None:
    """What a record holds is in its row, under the name of its field; the rest is null."""
    full = bid_of(9)
    full["person"], full["target"], full["product"] = 0xAA, 0xBB, 0xDD
    full["flags"], full["rate_e9"] = ClaimFlag.EXPECTED, 900_000_000
    bid = np.zeros(1, BID)
    bid["claims"], bid["reserve_nanos"], bid["time_ms"], bid["at"] = full, 1_234, T * 1000 + 7, 2
    order = np.zeros(1, CONVERSION)
    order["claims"], order["time_ms"], order["value_micros"] = bid_of(1), T * 1000, 59_900_000
    order["order"], order["currency"] = 0xEE, currency_code("EUR")
    order["value_state"] = PriceState.OK
    plain = np.zeros(1, CONVERSION)
    plain["claims"], plain["time_ms"], plain["value_micros"] = bid_of(1), T * 1000, NO_PRICE
    link = np.zeros(1, LINK)
    link["version"], link["count"], link["time_ms"], link["person"] = 1, 2, T * 1000, 0xAA
    link["others"][0, :2], link["ways"][0, :2] = (0xA1, 0xA2), (1, 3)
    shelf.write(
        4,
        (Kind.BID, bid.tobytes()),
        (Kind.WIN, notice(1, price_micros=1_500, min_to_win_micros=1_400, price_state=1)),
        (Kind.BILL, notice(1, price_state=PriceState.EMPTY, multiplier_e6=2_500_000)),
        (Kind.LOSS, notice(2, loss=102, min_to_win_micros=2_100)),
        (Kind.IMPRESSION, notice(1, shown_ms=T * 1000 + 3, discount_micros=10)),
        (Kind.CLICK, notice(1)),
        (Kind.VIEW, notice(1)),
        (Kind.VIDEO, notice(1, detail=VideoEvent.MIDPOINT)),
        (Kind.CONVERSION, plain.tobytes()),
        (Kind.ORDER, order.tobytes()),
        (Kind.EVENT, b"anything"),
        (Kind.LINK, link.tobytes()),
        (77, b"of a later version"),
        (Kind.BILL, b"too short"),
        (Kind.BID, b"\2" + bid.tobytes()[1:]),  # of another version
    )  # fmt: skip
    shelf.write(4)
    done = list(shelf.exporter().run())
    rows = shelf.rows()
    bid_row, win, bill, loss, shown, click, view, video, conversion, sale, event, linked = rows[:12]

    assert [(1, 15, 0, 4)] == [(one.segments, one.rows, one.damaged, one.unread) for _, one in done]
    assert [one.name for one in FIELDS] == list(bid_row)
    assert [
        "bid", "win", "bill", "loss", "impression", "click", "view", "video", "conversion", "order",
        "event", "link", "77", "bill", "bid",
    ] == [row["kind"] for row in rows]  # fmt: skip
    assert list(range(1, 16)) == [row["sequence"] for row in rows]
    assert {(NODE, 4)} == {(row["node"], row["worker"]) for row in rows}
    assert (f"{bid_id(T, NODE, 0, 9):016x}", T + 0.007) == (
        bid_row["bid"], bid_row["time"].timestamp(),
    )  # fmt: skip
    assert ("aa".zfill(16), "bb".zfill(16), "dd".zfill(16), "c0".zfill(16)) == tuple(
        bid_row[name] for name in ("person", "target", "product_key", "creative_key")
    )
    assert ("adx", f"{KEY:08x}", "banner", 3, f"{ITEM:016x}", True, False) == tuple(
        bid_row[name] for name in
        ("exchange", "exchange_key", "media", "secret", "line_item_key", "expected", "test")
    )  # fmt: skip
    assert (2_000, 900_000_000, 1_800, 1_234, 2, None) == tuple(
        bid_row[name] for name in
        ("bid_price_micros", "rate_e9", "bid_nanos", "reserve_nanos", "auction_type", "price_state")
    )  # fmt: skip
    assert (1_500, "ok", 1_500, None, 1_400) == tuple(
        win[name] for name in
        ("price_micros", "price_state", "cleared_nanos", "charged_nanos", "min_to_win_micros")
    )  # fmt: skip
    assert (None, "empty", None, 5_000, 2_500_000) == tuple(
        bill[name] for name in
        ("price_micros", "price_state", "cleared_nanos", "charged_nanos", "multiplier_e6")
    )  # fmt: skip
    assert (102, "lost_to_higher_bid", 2_100) == (
        loss["loss"], loss["loss_reason"], loss["min_to_win_micros"],
    )  # fmt: skip
    assert (T + 0.003, 10) == (shown["shown"].timestamp(), shown["discount_micros"])
    assert (None, None, None, None) == (
        click["loss"], click["video"], view["shown"], view["reserve_nanos"],
    )  # fmt: skip
    assert "midpoint" == video["video"]
    assert (None, None, None, "none") == tuple(
        conversion[name] for name in ("order", "value_micros", "value_currency", "value_state")
    )
    assert ("ee".zfill(16), 59_900_000, "EUR", "ok") == tuple(
        sale[name] for name in ("order", "value_micros", "value_currency", "value_state")
    )
    assert (b"anything", None, None) == (event["unread"], event["bid"], event["time"])
    assert ("aa".zfill(16), ["a1".zfill(16), "a2".zfill(16)], [1, 3], None) == tuple(
        linked[name] for name in ("person", "linked", "linked_ways", "bid")
    )
    assert [b"of a later version", b"too short"] == [row["unread"] for row in rows[12:14]]
    assert (None, bid.tobytes()[1:]) == (rows[14]["bid"], rows[14]["unread"][1:])


def test_whose_a_record_is(shelf: Shelf) -> None:
    """Names are of the snapshot that is served; who is in it no more keeps his key."""
    snapshot: Snapshot = worlds.snapshot(3, 20)
    item, creative = snapshot["line_items"][4], snapshot["creatives"][2]
    known, gone = bid_of(1), bid_of(2)
    known["line_item"], known["creative"] = item["key"], creative["key"]
    shelf.write(0, *((Kind.BID, bid_body(said, 1, T * 1000)) for said in (known, gone)))
    shelf.write(0)
    list(shelf.exporter(Names({}, snapshot)).run())
    row, other = shelf.rows()
    names = ("line_item", "campaign", "advertiser", "creative", "currency", "campaign_key")

    assert (
        snapshot.id_of("line_items", 4),
        snapshot.id_of("campaigns", int(item["campaign"])),
        snapshot.id_of("advertisers", int(item["advertiser"])),
        snapshot.id_of("creatives", 2),
        currency_name(int(item["currency"])),
        f"{int(snapshot['campaign_budgets']['key'][item['campaign']]):016x}",
    ) == tuple(row[name] for name in names)
    assert f"{int(item['key']):016x}" == row["line_item_key"]
    assert (None,) * 6 == tuple(other[name] for name in names)
    assert (f"{ITEM:016x}", None) == (other["line_item_key"], other["exchange"])


def test_two_workers_and_what_is_not_whole(shelf: Shelf) -> None:
    """A file a segment, each row once; the segment that is being written waits."""
    shelf.write(0, *sold(1))
    shelf.write(0, *sold(2))
    shelf.write(0, *sold(3))
    shelf.write(1, *sold(1, 1), salt=9)
    shelf.write(1, salt=9)
    before = shelf.waiting()
    exported = list(shelf.exporter().run())
    keys = [(row["node"], row["worker"], row["journal"], row["sequence"]) for row in shelf.rows()]

    assert (3, 0) == (before, shelf.waiting())
    assert ["2026-09-21/5-0-1", "2026-09-21/5-0-4", "2026-09-21/5-1-1"] == shelf.files()
    assert 9 == len(set(keys)) == len(keys)
    assert (6, 3) == (progress_of(shelf.events, 0).exported, progress_of(shelf.events, 1).exported)
    assert [1, 2, 1] == [one.segments for _, one in exported]
    assert [] == list(shelf.exporter().run())
    shelf.write(0)
    list(shelf.exporter().run())
    assert ["2026-09-21/5-0-1", "2026-09-21/5-0-4", "2026-09-21/5-0-7"] == shelf.files()[:3]


def test_the_schema_is_beside_the_files(shelf: Shelf) -> None:
    """For programs that look before they read; the files have it too."""
    shelf.write(0, *sold(1))
    shelf.write(0)
    list(shelf.exporter().run())
    said = json.loads((shelf.events / "schema.json").read_text())
    schema = pq.read_schema(next(shelf.events.glob("*/*.parquet")))

    assert (VERSION, "bid") == (said["version"], said["join"])
    assert ["node", "worker", "journal", "sequence"] == said["key"]
    assert [(one.name, one.type) for one in FIELDS] == [
        (one["name"], one["type"]) for one in said["fields"]
    ]
    assert [one.name for one in FIELDS] == schema.names
    assert str(VERSION).encode() == schema.metadata[b"rtb.events.version"]


# -- at least once, under one name -----------------------------------------------------------------


class Killed(BaseException):
    """The process ends where it stands."""


@pytest.mark.parametrize("at", range(1, 17))
def test_killed_at_any_step(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Whatever was done is done again, to the same names: no row twice, none lost."""
    shelf.write(0, *sold(1))
    shelf.write(0, *sold(2))
    shelf.write(0)
    calls = [0]

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            calls[0] += 1
            if calls[0] == at:
                raise Killed
            return real(*arguments, **named)

        return step

    monkeypatch.setattr(events_export, "sync", deadly(events_export.sync))
    monkeypatch.setattr(Path, "replace", deadly(Path.replace))
    with pytest.raises(Killed):
        list(shelf.exporter().run())
    monkeypatch.undo()
    list(shelf.exporter().run())

    assert ["2026-09-21/5-0-1", "2026-09-21/5-0-4"] == shelf.files()
    assert list(range(1, 7)) == [row["sequence"] for row in shelf.rows()]
    assert [] == list(shelf.events.rglob("*.new"))
    done = progress_of(shelf.events, 0)
    assert (6, 2, 6) == (done.exported, done.segments, done.rows)


def test_a_file_that_is_there_keeps_its_folder(shelf: Shelf) -> None:
    """Also where the record that named the day cannot be read any more."""
    shelf.write(0, *sold(1))
    shelf.write(0)
    list(shelf.exporter().run())
    (shelf.events / "progress" / "0.json").unlink()
    (shelf.events / "2026-09-21").rename(shelf.events / "2026-09-20")
    list(shelf.exporter().run())

    assert ["2026-09-20/5-0-1"] == shelf.files()


def test_a_journal_that_was_made_anew(shelf: Shelf) -> None:
    """Counts from 1 again, and replaces no file of the one before."""
    shelf.write(0, *sold(1), salt=1)
    shelf.write(0)
    list(shelf.exporter().run())
    for path in sorted((shelf.journals / "0").iterdir()):
        path.unlink()
    shelf.write(0, *sold(2), salt=77)
    shelf.write(0)
    list(shelf.exporter().run())

    assert ["2026-09-21/5-0-1"] * 2 == shelf.files()
    assert 6 == len({(row["journal"], row["sequence"]) for row in shelf.rows()})
    assert 2 == progress_of(shelf.events, 0).segments


def test_one_at_a_time(shelf: Shelf) -> None:
    """Two who exported at once would count twice."""
    shelf.write(0, *sold(1))
    shelf.write(0, *sold(2))
    shelf.write(0)
    first = shelf.exporter().run()
    next(first)
    with pytest.raises(StoreError, match="another one exports just now"):
        list(shelf.exporter().run())
    assert 1 == len(list(first))


# -- damage ----------------------------------------------------------------------------------------


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_damaged_records_are_left_out_and_counted(shelf: Shelf) -> None:
    """The first, one in the middle, and the last: the rest is there."""
    shelf.write(0, *sold(1), *sold(2))
    shelf.write(0, *sold(3))
    shelf.write(0)
    paths = [path for _, path in segments(shelf.journals / "0")]
    _flip(paths[0], 1024 + 20)
    _flip(paths[0], paths[0].stat().st_size - 5)
    _flip(paths[1], paths[1].read_bytes().find(sold(3)[1][1]) + 5)
    done = list(shelf.exporter().run())

    assert [2, 3, 4, 5, 7, 9] == [row["sequence"] for row in shelf.rows()]
    assert [(2, 4), (3, 6)] == [(one.damaged, one.rows) for _, one in done]
    assert 0 == shelf.waiting()


def test_a_segment_without_a_head(shelf: Shelf) -> None:
    """All of it is lost; what comes behind is not."""
    shelf.write(0, *sold(1))
    shelf.write(0, *sold(2))
    shelf.write(0)
    path = segments(shelf.journals / "0")[0][1]
    path.write_bytes(bytes(1024) + path.read_bytes()[1024:])
    os.utime(path, (T, T))
    list(shelf.exporter().run())

    assert [4, 5, 6] == [row["sequence"] for row in shelf.rows()]
    assert 3 == progress_of(shelf.events, 0).damaged
    assert ["2026-09-21/5-0-1", "2026-09-21/5-0-4"] == shelf.files()


def test_a_disk_that_is_full(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, nothing half is left, and the next one does it."""
    shelf.write(0, *sold(1))
    shelf.write(0)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(StoreError, match="No space left"):
        list(shelf.exporter().run())
    monkeypatch.undo()

    assert ([], 1, 0) == (shelf.files(), shelf.waiting(), progress_of(shelf.events, 0).exported)
    assert [] == list(shelf.events.rglob("*.new"))
    list(shelf.exporter().run())
    assert 3 == len(shelf.rows())


def test_a_progress_that_cannot_be_read(shelf: Shelf) -> None:
    """It is no word that nothing was exported: segments must not go."""
    shelf.write(0, *sold(1))
    shelf.write(0)
    list(shelf.exporter().run())
    (shelf.events / "progress" / "0.json").write_text("{")
    with pytest.raises(StoreError, match=r"progress/0\.json"):
        progress_of(shelf.events, 0)
