"""Signing the notices of a bid, and reading one that comes back."""

from bench.kernels.line import measure, show
from rtb._ext import notices as compiled
from rtb.base.events import bid_id
from rtb.base.links import Place
from rtb.exchanges import prices
from rtb.exchanges.settings import Exchange
from rtb.notices import tokens as readable
from rtb.notices.notice import Claims, Terms
from rtb.notices.reading import read
from rtb.notices.urls import Urls

NOW_S = 1_800_000_000
KEYS = readable.Keyring(1, {1: b"a secret of 32 bytes, as is due."})
EXCHANGE = Exchange(name="generic", path="generic")
CLAIMS = Claims(
    key=1, exchange=EXCHANGE.claim_key, bid=bid_id(NOW_S, 1, 1, 1), price_micros=2_000_000
).pack()


def main() -> None:
    """Prints a JSON line a twin, with and without VAST events, and one for reading."""
    fast, slow = compiled.Signer(KEYS), readable.Signer(KEYS)
    show("sign", measure(lambda: fast.sign(CLAIMS), 20_000))
    show("sign_events", measure(lambda: fast.sign(CLAIMS, True), 20_000))
    show("sign_readable", measure(lambda: slow.sign(CLAIMS), 2_000))

    url = Urls("https://bid.example", EXCHANGE).links("USD")[Place.BILL].url(fast.sign(CLAIMS))
    target = url.removeprefix(b"https://bid.example").replace(b"${AUCTION_PRICE}", b"1.25")
    terms = {EXCHANGE.claim_key: Terms(EXCHANGE, prices.reader(EXCHANGE, {}))}
    show("read_notice", measure(lambda: read(target, NOW_S * 1000, KEYS, terms), 2_000))


if __name__ == "__main__":
    main()
