"""Golden cases: whole requests with all their facts, per exchange.

`tests/golden/<exchange>/{exemplary,edge}/*.json` holds a description, a request and either its
facts (as `readable` shows them) or how it is refused. Exemplary cases are requests as they
should be.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rtb.base.errors import InputError
from rtb.exchanges.settings import Exchange

FOLDER = Path(__file__).parents[1] / "golden"
CASES = sorted(FOLDER.glob("*/*/*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_golden(path: Path, facts: Callable[..., dict], exchanges: dict[str, Exchange]):
    """A whole request has exactly the facts that were agreed on."""
    case = json.loads(path.read_text())
    exchange = exchanges[path.parts[-3]]
    if "refused" in case:
        assert "edge" == path.parts[-2]
        with pytest.raises(InputError) as caught:
            facts(case["request"], exchange)
        assert case["refused"] == {"error": type(caught.value).__name__, "path": caught.value.path}
        return
    assert case["facts"] == facts(case["request"], exchange)


def test_there_are_cases_of_both_kinds():
    """Cases lie where this test looks for them."""
    assert {"exemplary", "edge"} == {path.parts[-2] for path in CASES}
