from collections.abc import Mapping
from typing import Any

from rtb.base.links import Links, Sheets
from rtb.base.records import Decision, Opportunity
from rtb.exchanges.settings import Exchange

def encode(
    opportunity: Opportunity,
    decision: Decision,
    arrays: Mapping[str, Any],
    exchange: Exchange,
    links: Links,
    sheets: Sheets,
) -> bytes: ...
