"""Logs become the tokens that the bidder makes of requests and creatives."""

import contextlib
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.errors import InputError
from rtb.base.hashing import token_hash
from rtb.base.records import Dim
from rtb.decide.features import FEATURES_MAX
from rtb.learn.dataset import Dataset, Reader, read_logs


def tokens(data: Dataset, row: int) -> tuple[set[int], set[int]]:
    """(request side, ad side) of one row."""
    request = data.request_hashes[data.request_starts[row] : data.request_starts[row + 1]]
    ad = data.ad_hashes[data.ad_starts[row] : data.ad_starts[row + 1]]
    return {int(hash_) for hash_ in request}, {int(hash_) for hash_ in ad}


def of(dim: Dim, *values: str) -> set[int]:
    return {token_hash(dim, value.encode()) for value in values}


def test_columns_go_to_their_sides() -> None:
    """Dims are the request's, ad columns the creative's, others only when they are named."""
    reader = Reader(request_columns=["segment_group"], ad_columns=["colour"])
    reader.add(
        {"click": 1, "country": "USA", "device_type": 4, "domain": "News.Example.co",
         "page_category": "IAB1-2|7:53", "creative": "c1", "category": "Shoes > Running",
         "ad_size": "300x250", "segment_group": "a", "colour": "red", "price": 3,
         "viewability": 0.5, "hour_of_week": "17", "carrier": ""},
        "row 1",
    )  # fmt: skip
    data = reader.dataset()
    request, ad = tokens(data, 0)
    assert request == (
        of(Dim.COUNTRY, "usa") | of(Dim.DEVICE_TYPE, "4") | of(Dim.HOUR_OF_WEEK, "17")
        | of(Dim.DOMAIN, "news.example.co", "example.co")
        | of(Dim.PAGE_CATEGORY, "1:IAB1-2", "1:IAB1", "7:53")
        | of(Dim.KEY_VALUE, "segment_group=a")
    )  # fmt: skip
    assert ad == of(
        Dim.AD, "creative:c1", "category:Shoes", "category:Shoes > Running", "size:300x250",
        "colour:red",
    )  # fmt: skip
    assert data.ignored == ("price", "viewability")
    assert data.unseen == ("segment_group",)


def test_domains_are_spelled_as_requests_are_read() -> None:
    """A name in another script is learned under the spelling that bids look for."""
    reader = Reader()
    reader.add({"click": 0, "domain": "News.Bücher.example"}, "row 1")
    request, _ = tokens(reader.dataset(), 0)

    encoded = of(Dim.DOMAIN, "news.xn--bcher-kva.example", "xn--bcher-kva.example")
    assert encoded == request


def test_sides_are_sets_of_bounded_size() -> None:
    """A token counts once, and no row has more of the request than a bid looks at."""
    reader = Reader()
    reader.add({"click": 0, "country": ["USA", "usa", "FRA"]}, "row 1")
    reader.add({"click": 0, "bundle": [str(n) for n in range(200)]}, "row 2")
    data = reader.dataset()
    assert tokens(data, 0)[0] == of(Dim.COUNTRY, "usa", "fra")
    assert len(tokens(data, 1)[0]) == FEATURES_MAX


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.csv.gz", "a.jsonl.gz"])
def test_formats(tmp_path: Path, name: str) -> None:
    """The same rows in every format are the same dataset."""
    columns = ["click", "conversion", "time", "weight", "country", "creative"]
    rows = [["1", "1", "2026-03-01T00:00:00Z", "", "USA", "c1"],
            ["0", "0", "1772323201.5", "2.5", "", "c2"]]  # fmt: skip
    if "jsonl" in name:
        body = "\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
    else:
        cut = "\t" if "tsv" in name else ","
        body = "\ufeff" + "\r\n".join(cut.join(line) for line in [columns, *rows])
    content = body.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    data = read_logs([tmp_path / name])
    assert data.clicks.tolist() == [1, 0]
    assert data.conversions is not None
    assert data.conversions.tolist() == [1, 0]
    assert data.times_s is not None
    assert data.times_s.tolist() == [1772323200.0, 1772323201.5]
    assert data.weights.tolist() == [1.0, 2.5]
    assert tokens(data, 1) == (set(), of(Dim.AD, "creative:c2"))


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a.csv", "click,country\n2,USA\n", "a.csv row 1 field click"),
        ("a.csv", "click,weight\n1,1\n1,-3\n", "a.csv row 2 field weight"),
        ("a.csv", "click,weight\n1,nan\n", "a.csv row 1 field weight"),
        ("a.csv", "click,time\n1,yesterday\n", "a.csv row 1 field time"),
        ("a.csv", "click,country\n1\n", "a.csv row 1"),
        ("a.csv", "click,country\n1,2,3\n", "a.csv row 1"),
        ("a.csv", "country\nUSA\n", "needs `click`"),
        ("a.csv", "click\n", "no rows"),
        ("a.csv", "click\n\xff\n", "cannot read"),
        ("a.jsonl", '{"click":1}\n{"click"', "a.jsonl row 2"),
        ("a.jsonl", "[1]", "flat object"),
        ("a.jsonl", '{"click":1,"site":{}}', "flat object"),
        ("a.jsonl", "[" * 100_000, "not JSON"),
        ("a.xls", "click", "expected .csv"),
        ("a.csv.gz", "click", "cannot read"),
        ("b.csv", None, "cannot read"),
    ],
)
def test_bad_logs_name_the_place(tmp_path: Path, name: str, body: str | None, message: str) -> None:
    """A log that cannot be learned from is refused with its file, row and field."""
    if body is not None:
        (tmp_path / name).write_bytes(body.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        read_logs([tmp_path / name])


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=20) | st.integers() | st.none()))
def test_any_row(row: dict[str, str | int | None]) -> None:
    """A row of anything is read or refused, never a crash."""
    reader = Reader()
    with contextlib.suppress(InputError):
        reader.add({"click": 0} | row, "row 1")
