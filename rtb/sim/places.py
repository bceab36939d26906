"""Where people are: countries, regions and cities with their share of the traffic.

A line of the table: country, weight, language, currency; then a region a line: code, weight, and
its cities as "name lat lon postcode-start", separated by semicolons. Weights are rounded shares of
open-exchange traffic and of population; they only have to be plausible and never to change.
"""

from dataclasses import dataclass
from typing import Final

from rtb.sim.draws import Weighted

_TABLE: Final = """
USA 38 en USD -300
  CA 13 Los Angeles 34.05 -118.24 900; San Francisco 37.77 -122.42 941; San Diego 32.72 -117.16 921
  TX 10 Houston 29.76 -95.37 770; Dallas 32.78 -96.80 752; Austin 30.27 -97.74 787
  NY 8 New York 40.71 -74.01 100; Buffalo 42.89 -78.88 142
  FL 8 Miami 25.76 -80.19 331; Orlando 28.54 -81.38 328
  IL 5 Chicago 41.88 -87.63 606
  PA 5 Philadelphia 39.95 -75.17 191; Pittsburgh 40.44 -80.00 152
  OH 4 Columbus 39.96 -83.00 432; Cleveland 41.50 -81.69 441
  GA 4 Atlanta 33.75 -84.39 303
  WA 3 Seattle 47.61 -122.33 981
  MA 3 Boston 42.36 -71.06 021
  CO 2 Denver 39.74 -104.99 802
  AZ 3 Phoenix 33.45 -112.07 850
GBR 10 en GBP 0
  ENG 8 London 51.51 -0.13 SW1; Manchester 53.48 -2.24 M1; Birmingham 52.49 -1.89 B1
  SCT 1 Glasgow 55.86 -4.25 G1
  WLS 1 Cardiff 51.48 -3.18 CF1
DEU 10 de EUR 60
  BE 2 Berlin 52.52 13.41 101
  BY 3 Munich 48.14 11.58 803; Nuremberg 49.45 11.08 904
  NW 4 Cologne 50.94 6.96 506; Dortmund 51.51 7.47 441
  HH 1 Hamburg 53.55 9.99 200
  HE 2 Frankfurt 50.11 8.68 603
FRA 8 fr EUR 60
  IDF 4 Paris 48.86 2.35 750
  ARA 2 Lyon 45.76 4.84 690
  PAC 2 Marseille 43.30 5.37 130
  OCC 1 Toulouse 43.60 1.44 310
CAN 6 en CAD -300
  ON 4 Toronto 43.65 -79.38 M5H; Ottawa 45.42 -75.70 K1A
  QC 2 Montreal 45.50 -73.57 H2Y
  BC 1 Vancouver 49.28 -123.12 V5K
ESP 5 es EUR 60
  MD 2 Madrid 40.42 -3.70 280
  CT 2 Barcelona 41.39 2.17 080
  AN 1 Seville 37.39 -5.98 410
ITA 5 it EUR 60
  25 2 Milan 45.46 9.19 201
  62 2 Rome 41.90 12.50 001
  72 1 Naples 40.85 14.27 801
NLD 4 nl EUR 60
  NH 2 Amsterdam 52.37 4.90 101
  ZH 2 Rotterdam 51.92 4.48 301
BRA 5 pt BRL -180
  SP 3 Sao Paulo -23.55 -46.63 010
  RJ 2 Rio de Janeiro -22.91 -43.17 200
AUS 5 en AUD 600
  NSW 2 Sydney -33.87 151.21 200
  VIC 2 Melbourne -37.81 144.96 300
  QLD 1 Brisbane -27.47 153.03 400
JPN 4 ja JPY 540
  13 3 Tokyo 35.68 139.69 100
  27 2 Osaka 34.69 135.50 530
"""

# Members of the union whose consent rules requests carry.
GDPR_COUNTRIES: Final = frozenset({"DEU", "FRA", "ESP", "ITA", "NLD"})


@dataclass(frozen=True, slots=True)
class City:
    """A place as requests name it; `region` without the country, `zone_min` its UTC offset."""

    name: str
    region: str
    country: str
    language: str
    lat: float
    lon: float
    postcode: str
    zone_min: int


@dataclass(frozen=True, slots=True)
class Country:
    """A market: its language, its currency, its cities by their share within it."""

    code: str
    weight: float
    language: str
    currency: str
    cities: Weighted[City]

    def share(self, regions: frozenset[str]) -> float:
        """Share of the country's traffic that comes from some of its regions."""
        return self.cities.share(lambda city: city.region in regions)

    @property
    def regions(self) -> list[str]:
        return list(dict.fromkeys(city.region for city in self.cities.values))


def _read(table: str) -> list[Country]:
    countries: list[Country] = []
    blocks = [block for block in table.strip().splitlines() if block]
    heads = [number for number, line in enumerate(blocks) if not line.startswith(" ")]
    for start, stop in zip(heads, [*heads[1:], len(blocks)], strict=True):
        code, weight, language, currency, zone = blocks[start].split()
        cities: list[City] = []
        weights: list[float] = []
        for line in blocks[start + 1 : stop]:
            region, share, rest = line.split(maxsplit=2)
            names = rest.split(";")
            for rank, text in enumerate(names):
                name, lat, lon, postcode = text.strip().rsplit(maxsplit=3)
                where = (float(lat), float(lon), postcode, int(zone))
                cities.append(City(name, region, code, language, *where))
                # The first city of a region is its largest.
                weights.append(float(share) * (0.5 + 0.5 * (rank == 0)) / (1 + len(names)) * 2)
        countries.append(
            Country(code, float(weight), language, currency, Weighted(cities, weights))
        )
    return countries


COUNTRIES: Final = Weighted(_read(_TABLE), (country.weight for country in _read(_TABLE)))
COUNTRY: Final = {country.code: country for country in COUNTRIES.values}

# Share of a day's traffic by hour, per mille, and of a week's by day from Monday: the mean curve of
# a public log of retail traffic by region.
HOUR_SHARES: Final = (
    14, 10, 8, 8, 10, 14, 20, 29, 44, 60, 71, 73, 73, 71, 69, 67, 63, 58, 54, 49, 44, 38, 31, 22,
)  # fmt: skip
DAY_SHARES: Final = (154, 175, 147, 144, 137, 123, 120)
