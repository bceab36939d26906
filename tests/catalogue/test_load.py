"""Loading: every format, every fault with its place, and files that mean harm."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtb.catalogue import load as loading
from rtb.catalogue.check import Outside
from rtb.catalogue.load import Problem, load
from rtb.catalogue.model import KINDS, Catalogue

SHOP = """
[[advertisers]]
id = "shop"
domains = ["shop.example"]

[[campaigns]]
id = "spring"
advertiser = "shop"
flights = [{ start = 2026-03-01, end = 2026-03-31T12:00:00Z }]
"""
HEADER = "id,title,price,availability\n"


def write(directory: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (directory / name).write_bytes(data)
    return directory


def found(directory: Path, **files: str | bytes) -> tuple[Catalogue, list[tuple[str, int, str]]]:
    """Names have "__" for their dot. Problems as (file, row, field)."""
    write(directory, {name.replace("__", "."): content for name, content in files.items()})
    catalogue, problems = load(directory)
    return catalogue, [(each.file, each.row, each.field) for each in problems]


def test_toml_with_its_dates(tmp_path: Path) -> None:
    """TOML has dates of its own; they read like the text of other formats."""
    catalogue, problems = found(tmp_path, shop__toml=SHOP)
    assert problems == []
    flight = catalogue.campaigns["spring"].flights[0]
    assert (flight.start, flight.end) == ("2026-03-01", "2026-03-31T12:00:00+00:00")


def test_json_and_json_lines(tmp_path: Path) -> None:
    """A .json file holds tables, a .jsonl file is one table by its name; a BOM is no fault."""
    lines = b'\xef\xbb\xbf{"id":"c1","advertiser":"a"}\n\n{"id":"c2","advertiser":"a"}\n'
    catalogue, problems = found(
        tmp_path,
        all__json=b'\xef\xbb\xbf{"advertisers":[{"id":"a"}]}',
        **{"campaigns-1__jsonl": lines},
    )
    assert problems == []
    assert list(catalogue.campaigns) == ["c1", "c2"]


def test_feed_belongs_to_the_advertiser_it_says(tmp_path: Path) -> None:
    """By column, by name of the file, or to the only advertiser there is."""
    write(tmp_path, {"shop.toml": SHOP, "products.csv": HEADER + "p1,Shoe,1 USD,in stock\n"})
    assert list(load(tmp_path)[0].products) == ["shop/p1"]
    write(tmp_path, {"b.json": '{"advertisers":[{"id":"b"}]}'})
    write(tmp_path, {"products-b.csv": HEADER + "p2,Shoe,1 USD,in stock\n"})
    write(tmp_path, {"products.csv": "advertiser," + HEADER + "shop,p1,Shoe,1 USD,in stock\n"})
    catalogue, problems = load(tmp_path)
    assert (problems, list(catalogue.products)) == ([], ["b/p2", "shop/p1"])


def test_feed_spelled_as_merchants_do(tmp_path: Path) -> None:
    """BOM, CRLF, prefix g:, spaces in names, quotes, line breaks in cells, tabs."""
    text = (
        "\ufeffg:id\tTitle\tg:price\tproduct type\tmobile link\r\n"
        'p1\t"Shoe ""9""\nred"\t45.00 USD\tShoes > Running\thttps://x.example/\r\n'
    )
    catalogue, problems = found(tmp_path, shop__toml=SHOP, products__tsv=text)
    assert problems == []
    product = catalogue.products["shop/p1"]
    assert (product.title, product.category) == ('Shoe "9"\nred', "Shoes > Running")


def test_rows_are_counted_as_lines(tmp_path: Path) -> None:
    """A row that spans lines does not shift the numbers of those after it."""
    rows = (
        'p1,"a\nb\nc",1 USD,in stock\np2,Shoe,45$,in stock\n\n=cmd(),x,1 USD,maybe\np1,d,1 USD,\n'
    )
    catalogue, problems = found(tmp_path, shop__toml=SHOP, products__csv=HEADER + rows)
    # Double ids are known on reading; the other two show when rules are applied.
    expected = [(8, "id"), (5, "price"), (7, "availability")]
    assert [("products.csv", *place) for place in expected] == problems
    assert list(catalogue.products) == ["shop/p1", "shop/p2", "shop/=cmd()"]


def test_every_fault_of_an_object_is_told(tmp_path: Path) -> None:
    """One wrong field does not hide the next, nor the rules about the rest."""
    creative = {
        "id": "x", "advertiser": "a", "type": "image", "width": "wide", "attr": [1, "two"],
        "colour": "red",
    }  # fmt: skip
    _, problems = found(tmp_path, all__json=json.dumps({"creatives": [creative]}))
    unreadable = {"colour", "width", "attr[1]"}
    ruled = {"image_url", "categories", "landing_page", "advertiser", "mime", "height"}
    assert {("all.json", 1, name) for name in unreadable | ruled} == set(problems)
    creative |= {"width": 300, "attr": [1]}
    _, problems = found(tmp_path, all__json=json.dumps({"creatives": [creative]}))
    names = {name for _, _, name in problems}
    assert {"colour", "advertiser", "image_url", "height", "landing_page"} <= names


FAULTS: list[tuple[str, str | bytes, tuple[int, str]]] = [
    ("x.toml", "[[advertisers]\n", (0, "")),
    ("x.toml", b"\xff\xfe[", (0, "")),
    ("x.json", "[]", (0, "")),
    ("x.json", "{", (0, "")),
    ("x.json", "[" * 100_000, (0, "")),
    ("x.json", '{"advertiser":[]}', (0, "advertiser")),
    ("x.json", '{"advertisers":{}}', (0, "advertisers")),
    ("x.json", '{"advertisers":[{"id":"a"},7]}', (2, "")),
    ("x.json", '{"advertisers":[{"id":"a"},{}]}', (2, "id")),
    ("x.json", '{"advertisers":[{"id":"a"},{"id":"a"}]}', (2, "id")),
    ("x.json", '{"campaigns":[{"id":"c","advertiser":"z"}]}', (1, "advertiser")),
    ("line_items.jsonl", '{"id":"a"}\n{]\n', (2, "")),
    ("line_items.jsonl", '{"id":"a","goal":{"type":"cpm","amount":2.5}}', (1, "goal.amount")),
    ("line_items.jsonl", b'{"id":"\xff"}', (1, "")),
    ("things.jsonl", "{}", (0, "")),
    ("notes.csv", "a,b\n", (0, "")),
    ("readme.txt", "hello", (0, "")),
    ("products.csv", "", (1, "")),
    ("products.csv", HEADER + 'p1,"never closed,1 USD,in stock\n' * 9, (3, "")),
    ("products.csv", HEADER + 'p1,"never closed\n' + "p,x,1 USD,\n" * 9, (11, "")),
    ("products.csv", HEADER + "p1,a,1 USD,in stock,more\n", (2, "")),
    ("products.csv", HEADER.encode("utf-16"), (0, "")),
    ("products.csv", HEADER.encode() + b"p1,\xff,1 USD,in stock\n", (0, "")),
    ("products.csv", ",".join(f"c{n}" for n in range(100_000)), (1, "")),
    ("products.csv", "id,title,title\n", (1, "title")),
    ("products.csv", HEADER.replace("price", "cost") + "p1,a,1 USD,\n", (1, "cost")),
    ("products.csv", HEADER + "p\x001,a,1 USD,in stock\n", (2, "id")),
    ("products.csv", HEADER + "p1," + "x" * 200_000 + ",1 USD,in stock\n", (2, "")),
]


@pytest.mark.parametrize(
    ("name", "content", "place"), FAULTS, ids=lambda value: str(value)[:30].encode().decode()
)
def test_fault_is_told_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, place: tuple[int, str]
) -> None:
    """Nothing in a file raises; each fault is a problem of that file and row."""
    write(tmp_path, {"advertiser.json": '{"advertisers":[{"id":"one"}]}', name: content})
    _, problems = load(tmp_path)
    assert (name, *place) in [(each.file, each.row, each.field) for each in problems]


def test_long_line_stops_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without end is not read into memory."""
    monkeypatch.setattr(loading, "LINE_BYTES_MAX", 64)
    lines = '{"id":"a"}\n{"id":"' + "b" * 100 + '"}\n{"id":"c"}\n'
    catalogue, problems = found(tmp_path, segments__jsonl=lines)
    assert (list(catalogue.segments), problems) == (["a"], [("segments.jsonl", 2, "")])


def test_big_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What must be held in memory is bounded."""
    monkeypatch.setattr(loading, "FILE_BYTES_MAX", 8)
    monkeypatch.setattr(loading, "FEED_BYTES_MAX", 8)
    _, problems = found(tmp_path, shop__toml=SHOP, products__csv=HEADER)
    assert problems == [("shop.toml", 0, ""), ("products.csv", 0, "")]


def test_problems_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken file of a million rows does not fill the memory with complaints."""
    monkeypatch.setattr(loading, "PROBLEMS_PER_FILE_MAX", 5)
    _, problems = found(tmp_path, segments__jsonl="{}\n" * 100)
    assert problems == [
        *(("segments.jsonl", n, "id") for n in range(1, 5)),
        ("segments.jsonl", 5, ""),
    ]


def test_too_many_rows_stop_a_feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are bounded."""
    monkeypatch.setattr(loading, "FEED_ROWS_MAX", 2)
    rows = "".join(f"p{n},a,1 USD,in stock\n" for n in range(9))
    catalogue, problems = found(tmp_path, shop__toml=SHOP, products__csv=HEADER + rows)
    assert (len(catalogue.products), problems) == (2, [("products.csv", 4, "")])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.sampled_from(["x.toml", "x.json", "line_items.jsonl", "products.csv", "creatives.jsonl"]),
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
    ),
)
def test_no_bytes_raise(tmp_path: Path, name: str, content: bytes) -> None:
    """Whatever a file holds, loading comes back."""
    for path in tmp_path.iterdir():
        path.unlink()
    load(write(tmp_path, {name: content}))


def test_whole_catalogue_comes_back(tmp_path: Path, catalogue_of: Callable[..., Catalogue]) -> None:
    """What is written as JSON lines is read as it was."""
    catalogue = catalogue_of(40)
    for kind in KINDS:
        lines = [msgspec.json.encode(each) for each in catalogue.table(kind).values()]
        write(tmp_path, {f"{kind}.jsonl": b"\n".join(lines)})
    loaded, problems = load(tmp_path)
    assert [each for each in problems if each.severity == "error"] == []
    assert catalogue == loaded


def test_problems_name_their_table(tmp_path: Path) -> None:
    """In a file of several tables the number of an object does not say which object it is."""
    tables = {
        "advertisers": [{"id": "a", "domains": ["a.test"], "currency": "EURO"}, 7],
        "campaigns": [{"id": "c", "advertiser": "a"}, {"id": "c", "advertiser": "a"}],
        "creatives": [{"id": "v", "advertiser": "a", "type": "audio", "duration_s": "x"}],
        "deals": {},
    }
    write(tmp_path, {"c.json": msgspec.json.encode(tables)})
    write(tmp_path, {"line_items.jsonl": "{"})
    write(tmp_path, {"products.csv": HEADER + "1,2,3,4,5\n1,x,bad,in_stock\n"})
    errors = {
        (each.table, each.row, each.field) for each in load(tmp_path)[1] if each.severity == "error"
    }
    expected = {
        ("advertisers", 1, "currency"), ("advertisers", 2, ""), ("campaigns", 2, "id"),
        ("creatives", 1, "duration_s"), ("", 0, "deals"), ("line_items", 1, ""),
        ("products", 2, ""), ("products", 3, "price"),
    }  # fmt: skip
    assert expected <= errors


def test_problem_is_json(tmp_path: Path) -> None:
    """Problems print as JSON for machines."""
    problem = Problem("f", 1, "x", "m", table="deals")
    expected = b'{"file":"f","row":1,"field":"x","message":"m","severity":"error","table":"deals"}'
    assert expected == msgspec.json.encode(problem)


def test_every_fault_of_a_targeting_tree_is_told(tmp_path: Path) -> None:
    """A wrong leaf does not hide those beside it, and a wrong field not the tree."""
    tree = {
        "all": [
            {"key": "country", "in": ["Germany"]},
            {"any": [{"key": "hour", "days": ["mun"]}, {"key": "keyward", "in": ["x"]}]},
            {"key": "os", "in": ["ios"]},
        ]
    }
    line_item = {
        "id": "l", "campaign": "c", "goal": {"type": "cpm", "amount": "1"}, "creatives": ["x"],
        "targeting": tree, "separation": 5,
    }  # fmt: skip
    _, problems = found(tmp_path, all__json=json.dumps({"line_items": [line_item]}))
    places = {place for _, _, place in problems}

    assert {"separation", "targeting.all[0].in[0]"} <= places
    assert 4 <= len({place for place in places if place.startswith(("targeting", "separation"))})


def line_item(**fields: object) -> dict[str, object]:
    good = {"id": "l", "campaign": "c", "goal": {"type": "cpm", "amount": "1"}, "creatives": ["x"]}
    return good | fields


def places_of(directory: Path, **tables: object) -> list[tuple[int, str]]:
    """(row, field) of all errors in a file of tables, beside an advertiser and a campaign."""
    tables = {
        "advertisers": [{"id": "a", "domains": ["a.example"]}],
        "campaigns": [{"id": "c", "advertiser": "a"}],
    } | tables
    write(directory, {"all.json": json.dumps(tables)})
    return sorted((p.row, p.field) for p in load(directory)[1] if p.severity == "error")


def test_wrong_field_that_is_needed_hides_nothing(tmp_path: Path) -> None:
    """Rules on the rest are applied although the object cannot be made."""
    wrong = line_item(bogus=1, goal={"type": "cpx"}, campaign="nobody", max_cpm="-1")
    expected = ["bogus", "campaign", "creatives[0]", "goal.type", "max_cpm"]
    assert [(1, name) for name in expected] == places_of(tmp_path, line_items=[wrong])


def test_every_fault_inside_a_field_is_told(tmp_path: Path) -> None:
    """Objects in objects and lists tell all their faults, each at its place."""
    wrong = line_item(
        creatives=[7, "x", 8],
        goal={"type": "cpx", "amount": 0.45, "colour": 1},
        frequency_caps=[{"count": "x"}, {"count": 1, "window": "1d", "level": "town"}],
    )
    expected = [
        "creatives[0]", "creatives[2]", "frequency_caps[0].count", "frequency_caps[0].window",
        "frequency_caps[1].level", "goal.amount", "goal.colour", "goal.type",
    ]  # fmt: skip
    assert [(1, name) for name in expected] == places_of(tmp_path, line_items=[wrong])


def test_double_id_hides_nothing_and_is_not_hidden(tmp_path: Path) -> None:
    """An id is taken by whoever came first, refused or not, and its object tells the rest."""
    float_amount = line_item(goal={"type": "cpm", "amount": 0.45})
    broken = line_item(campaign="nobody")
    found = places_of(tmp_path, line_items=[line_item(), float_amount, broken])
    assert [(1, "creatives[0]"), (2, "creatives[0]"), (2, "goal.amount"), (2, "id")] == found[:4]
    assert [(3, "campaign"), (3, "creatives[0]"), (3, "id")] == found[4:]

    found = places_of(tmp_path, line_items=[float_amount, line_item()])
    assert [(2, "creatives[0]"), (2, "id")] == found[2:]


def test_creative_without_type_tells_what_any_type_would(tmp_path: Path) -> None:
    """What only some types need is not asked of a creative whose type cannot be read."""
    creative = {
        "id": "x", "advertiser": "nobody", "type": "gif", "product": "p", "language": "english?",
        "html": "{product.title}",
    }  # fmt: skip
    expected = [(1, "advertiser"), (1, "language"), (1, "type")]
    assert expected == places_of(tmp_path, creatives=[creative])


def test_missing_owner_of_a_product_hides_nothing(tmp_path: Path) -> None:
    """Products of nobody are not taken for one another."""
    product = {"id": "p", "price": "45$", "availability": "perhaps"}
    found = places_of(tmp_path, products=[product, product])
    expected = ["advertiser", "availability", "price", "title"]
    assert [(row, name) for row in (1, 2) for name in expected] == found


def test_unheard_of_values_are_warned_of(tmp_path: Path) -> None:
    """Where the values of a key are known, others are told: with file, row and field."""
    tree = {"all": [
        {"key": "country", "in": ["DEU", "ZZZ"]},
        {"not": {"any": [{"key": "os", "is": "nonsense"}, {"key": "os", "is": "iPhone OS"}]}},
        {"key": "keyword", "in": ["anything"]},
    ]}  # fmt: skip
    write(tmp_path, {"all.json": json.dumps({"line_items": [line_item(targeting=tree)]})})
    known = Outside({"country": frozenset({"deu"}), "os": frozenset({"ios"})})
    warnings = [p for p in load(tmp_path, known)[1] if p.severity == "warning"]
    expected = [
        ("all.json", 1, "targeting.all[0].in[1]"),
        ("all.json", 1, "targeting.all[1].not.any[0].in[0]"),
    ]
    assert expected == [(each.file, each.row, each.field) for each in warnings]


def test_unknown_segment_beside_a_wrong_leaf(tmp_path: Path) -> None:
    """A leaf that cannot be read does not hide a segment that is not there."""
    tree = {"all": [{"key": "country", "in": ["X"]}, {"key": "audience", "in": ["nobody"]}]}
    found = places_of(tmp_path, line_items=[line_item(targeting=tree)])
    assert {(1, "targeting.all[0].in[0]"), (1, "targeting.all[1].in[0]")} <= set(found)


def test_deep_tree_is_a_fault_and_no_crash(tmp_path: Path) -> None:
    """A tree deeper than anybody writes comes back as a problem."""
    tree = '{"not":' * 400 + '{"key":"os","is":"ios"}' + "}" * 400
    item = json.dumps(line_item(targeting=0)).replace('"targeting": 0', f'"targeting": {tree}')
    write(tmp_path, {"line_items.jsonl": item})
    problems = load(tmp_path, Outside({"os": frozenset()}))[1]
    assert any(each.field.startswith("targeting") for each in problems)
