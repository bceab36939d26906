"""Figures, their targets, and the files that they are published from."""

from pathlib import Path

import pytest

from bench.record import Figure, Result, load, number


@pytest.mark.parametrize(
    ("value", "limit", "at_least", "expected"),
    [
        (5.0, 5.0, False, True),
        (5.1, 5.0, False, False),
        (0.95, 0.9, True, True),
        (0.85, 0.9, True, False),
        (1.0, None, False, None),
    ],
)
def test_a_figure_holds_its_limit(
    value: float, limit: float | None, at_least: bool, expected: bool | None
) -> None:
    """A limit is a bound from above, or from below where it says so."""
    assert expected == Figure("x", "x", value, "", limit, at_least).holds


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (28123.4, "28,123"), (5.096, "5.1"), (12.0, "12"), (0.99951, "0.9995")],
)
def test_numbers_have_the_digits_they_deserve(value: float, expected: str) -> None:
    """People compare figures; digits beyond what was measured would mislead them."""
    assert expected == number(value)


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    """The file holds figures with target and verdict, the machine and the commit."""
    result = Result("decide", "What does a decision cost?", {"rounds": 3})
    result.add("decide_us", "decide", 9.5, "us", 8.0)
    result.write(tmp_path)

    found = load(tmp_path)["decide"]

    figure = {
        "name": "decide_us", "label": "decide", "value": 9.5, "unit": "us", "target": "<= 8",
        "holds": False,
    }  # fmt: skip
    assert [figure] == found["figures"]
    assert {"name", "question", "date", "commit", "machine", "python", "parameters", "figures",
            "details"} == set(found)  # fmt: skip
