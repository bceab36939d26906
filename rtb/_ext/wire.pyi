from rtb.base.records import Opportunity
from rtb.exchanges.settings import Exchange

def decode(data: bytes, start: int, exchange: Exchange, opportunity: Opportunity) -> bool:
    """Overwrites `opportunity` with the facts of `data[start:]`; False: in doubt."""
