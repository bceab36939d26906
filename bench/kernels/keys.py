"""From the identifiers of a request to the keys of a profile."""

from bench.kernels.line import measure, show
from rtb._ext import identity as compiled
from rtb.base.records import Opportunity
from rtb.exchanges import decode, settings
from rtb.profiles import identity as readable
from rtb.server.settings import CONFIGS

BODY = (
    b'{"id":"1","imp":[{"id":"1","banner":{"w":300,"h":250}}],"user":{"id":"a-user-of-theirs",'
    b'"buyeruid":"u12345","eids":[{"source":"ids.example","uids":[{"id":"an-extended-id"}]}]},'
    b'"device":{"ifa":"6f0f8a46-3b1c-4d2e-9c1a-0a1b2c3d4e5f"}}'
)


def main() -> None:
    """Prints a JSON line a twin."""
    exchange = settings.load_all(CONFIGS / "exchanges")["generic"]
    opportunity = Opportunity()
    decode.decode(BODY, exchange, opportunity)
    ids = int(opportunity.facts["head"]["ids_count"][0])
    name = b"generic"
    show("keys", measure(lambda: compiled.keys_of(opportunity, name), 20_000), ids=ids)
    show("keys_readable", measure(lambda: readable.keys_of(opportunity, name), 1_000), ids=ids)


if __name__ == "__main__":
    main()
