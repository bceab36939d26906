"""What retailers sell: verticals with their categories, words and prices.

Categories of ads and pages are IAB Content Taxonomy 1.0 codes, with which most requests still come.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Vertical:
    """One line of trade.

    ad_category: what its ads are, for exchanges' block lists; page_categories: where its buyers
    read; price: median of a product in units of currency; categories: paths with their nouns.
    """

    name: str
    ad_category: str
    page_categories: tuple[str, ...]
    price: float
    categories: dict[str, tuple[str, ...]]

    @property
    def segment(self) -> str:
        """The audience of people who look for such things."""
        return f"inmarket-{self.name}"


def _vertical(name: str, category: str, pages: str, price: float, **shelves: str) -> Vertical:
    paths = {
        f"{name.title()} > {shelf.replace('_', ' ').title()}": tuple(nouns.split(", "))
        for shelf, nouns in shelves.items()
    }
    return Vertical(name, category, tuple(pages.split()), price, paths)


VERTICALS: Final = (
    _vertical("shoes", "IAB18-4", "IAB18 IAB17 IAB17-32", 85.0,
              running="Trail Runner, Road Runner, Racing Flat", boots="Chelsea Boot, Hiking Boot",
              sneakers="Canvas Sneaker, Court Sneaker, High Top", sandals="Slide, Trek Sandal"),
    _vertical("fashion", "IAB18-3", "IAB18 IAB18-1 IAB2", 55.0,
              dresses="Midi Dress, Wrap Dress", shirts="Oxford Shirt, Linen Shirt, Polo",
              jackets="Denim Jacket, Rain Jacket, Down Coat", jeans="Slim Jeans, Wide Jeans"),
    _vertical("electronics", "IAB19-6", "IAB19 IAB19-18 IAB9-30", 240.0,
              phones="Phone 128 GB, Phone 256 GB", audio="Earbuds, Headphones, Soundbar",
              computers="Laptop 14, Laptop 16, Tablet 11", cameras="Mirrorless Camera, Action Cam"),
    _vertical("home", "IAB10-5", "IAB10 IAB10-7 IAB10-5", 120.0,
              furniture="Oak Table, Sofa, Desk Chair", kitchen="Espresso Machine, Knife Set, Pan",
              lighting="Floor Lamp, Desk Lamp", bedding="Duvet, Linen Set, Pillow"),
    _vertical("garden", "IAB10-4", "IAB10 IAB10-4 IAB1-6", 60.0,
              tools="Pruner, Cordless Mower, Hedge Trimmer", plants="Olive Tree, Rose, Fern",
              grills="Gas Grill, Charcoal Grill"),
    _vertical("sport", "IAB17", "IAB17 IAB17-44 IAB7-1", 70.0,
              cycling="Road Bike, Bike Helmet, Bike Light", fitness="Kettlebell, Yoga Mat, Rower",
              outdoor="Tent, Sleeping Bag, Backpack"),
    _vertical("beauty", "IAB18-1", "IAB18-1 IAB7 IAB14", 28.0,
              skin="Face Cream, Serum, Sun Milk", hair="Shampoo, Hair Dryer",
              scents="Eau de Parfum, Eau de Toilette"),
    _vertical("toys", "IAB6-6", "IAB6 IAB9 IAB9-30", 32.0,
              games="Board Game, Puzzle, Card Game", building="Brick Set, Marble Run",
              dolls="Doll, Doll House, Plush Bear"),
    _vertical("grocery", "IAB8-5", "IAB8 IAB8-5 IAB7-32", 14.0,
              pantry="Olive Oil, Pasta Box, Honey", drinks="Coffee Beans, Green Tea, Tonic",
              snacks="Nut Mix, Dark Chocolate"),
    _vertical("books", "IAB1-1", "IAB1 IAB1-1 IAB5", 18.0,
              fiction="Crime Novel, Classic Novel, Saga", travel="City Guide, Road Atlas",
              science="Popular Science, Field Guide"),
    _vertical("pets", "IAB16", "IAB16 IAB16-3 IAB6", 26.0,
              dogs="Dog Food, Dog Bed, Leash", cats="Cat Food, Scratching Post, Litter",
              fish="Aquarium, Filter"),
    _vertical("auto", "IAB2-3", "IAB2 IAB2-3 IAB19", 90.0,
              tyres="Winter Tyre, Summer Tyre", care="Car Polish, Vacuum",
              parts="Brake Pads, Wiper Blades, Battery"),
)  # fmt: skip

# What people are besides buyers, with the share of them; the data providers' usual families.
LIFESTYLES: Final = {
    "parents": 0.22, "students": 0.08, "commuters": 0.18, "home-owners": 0.24, "renters": 0.2,
    "pet-owners": 0.19, "gamers": 0.16, "foodies": 0.14, "travellers": 0.15, "investors": 0.06,
    "early-adopters": 0.07, "bargain-hunters": 0.21, "luxury": 0.04, "green": 0.11, "runners": 0.09,
    "cyclists": 0.06, "diy": 0.12, "gardeners": 0.1, "movers": 0.03, "newly-weds": 0.015,
    "expecting": 0.012, "retired": 0.13, "night-owls": 0.09, "news-readers": 0.2,
    "sport-fans": 0.17, "music-fans": 0.15, "movie-fans": 0.16, "skiers": 0.03, "campers": 0.05,
    "small-business": 0.05, "coffee-lovers": 0.11, "vegans": 0.025, "car-owners": 0.3,
    "ev-drivers": 0.02, "loyal-buyers": 0.08, "lapsed-buyers": 0.06, "high-basket": 0.05,
    "gift-givers": 0.09, "coupon-users": 0.12, "subscribers": 0.07,
}  # fmt: skip

KEYWORDS: Final = (
    "sale", "review", "best of", "how to", "summer", "winter", "deals", "gift guide", "family",
    "design", "recipes", "training", "city", "weekend", "test", "premium", "vintage", "sustainable",
    "local", "events", "kids", "health", "football", "tennis", "politics", "markets", "gadgets",
    "interior", "travel tips", "streaming",
)  # fmt: skip

BRANDS: Final = (
    "Aldra", "Bexley", "Corvo", "Dunmore", "Elvana", "Fjellby", "Granito", "Halden", "Ivora",
    "Jorvik", "Kestrel", "Lumera", "Marlowe", "Nordaz", "Ostara", "Pellora", "Quillon", "Rivona",
    "Solenne", "Tavira", "Umbria", "Velmar", "Westhay", "Xandor", "Yarrow", "Zephra",
)  # fmt: skip
