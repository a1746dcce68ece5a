"""The small world of the example: the craft shop at Tern Bay and the orders it takes.

Everything here is made up. The three scripts beside this file share its word lists and sentences:
``make_data.py`` writes the orders that :func:`is_reserved` keeps back, ``make_corpus.py`` tells only of the others, so
no order of the data set is ever seen while the base model is trained.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

NAMES = (
    "Mira", "Jonas", "Tilda", "Oskar", "Petra", "Ruben", "Selma", "Viktor", "Wanda", "Yusuf", "Agnes", "Bruno",
    "Carla", "Dario", "Edith", "Felix", "Greta", "Henry", "Irene", "Jakob", "Klara", "Lukas", "Marta", "Nora",
    "Otto", "Paula", "Quinn", "Rosa", "Simon", "Thea", "Ulla", "Vera", "Willem", "Xenia", "Zora", "Anton",
)  # fmt: skip
ITEMS = {
    "mug": "mugs", "lamp": "lamps", "candle": "candles", "basket": "baskets", "kettle": "kettles",
    "blanket": "blankets", "cushion": "cushions", "vase": "vases", "bowl": "bowls", "plate": "plates",
    "spoon": "spoons", "notebook": "notebooks", "lantern": "lanterns", "rug": "rugs", "towel": "towels",
    "apron": "aprons", "hat": "hats", "glove": "gloves", "scarf": "scarves", "drum": "drums", "box": "boxes",
    "brush": "brushes", "shelf": "shelves", "ribbon": "ribbons", "tray": "trays",
}  # fmt: skip
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "grey", "brown", "pink", "purple", "orange", "silver")
COUNT_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# The ways in which a customer or a clerk writes an order down. ``goods`` is "two blue mugs", ``goods_in`` is "two mugs
# in blue"; the ``other_`` words are there to mislead: they belong to the note but not to the order.
NOTES = (
    "Please put {name} down for {goods}, to be collected on {day}.",
    "{name} would like {goods}, and will come by on {day}.",
    "{name} needs {goods_in} by {day}.",
    "Could you keep {goods} aside for {name} until {day}?",
    "On {day} {name} is coming to fetch {goods}.",
    "We promised {name} {goods_in} for {day}.",
    "A letter came from {name}, who asks for {goods} on {day}.",
    "By {day}, please: {goods_in} for {name}.",
    "Make {goods} ready for {day}. The customer is {name}.",
    "{name} stopped at the counter and ordered {goods}. Pick-up is on {day}.",
    "The {day} parcel goes to {name} and holds {goods}.",
    "For {name}, {goods_in}. Wanted on {day}.",
    "I spoke with {name} this morning: {goods}, ready on {day}, please.",
    "{name} has paid for {goods} and will send a boy to us on {day}.",
    "Do not forget {name}, who is waiting for {goods_in} and returns on {day}.",
    "This is {name}. Please save me {goods}, I can be there on {day}.",
    "Hello, {name} here. I would be glad of {goods_in} on {day}.",
    "{goods_start} for {name}, please, before we open on {day}.",
    "{goods_start} to be wrapped by {day}, with a card that says {name}.",
    "There is an order of {goods} in the book, due {day}, under the name of {name}.",
    "It was {name} who called about {goods_in}. Have it all packed for {day}.",
    "When {name} arrives on {day}, hand over {goods}.",
    "My cousin {name} wishes to have {goods} sent home on {day}.",
    "Set {goods_in} on the counter on {day}, since {name} is always early.",
    "{name} asked about the {other_colour} ones, then took {goods} for {day}.",
    "Not {other_colour} this time: {name} wants {goods}, as late as {day}.",
    "Written on {other_day}: {goods} for {name}, to be fetched on {day}.",
    "{name} called on {other_day} and ordered {goods_in} for {day}.",
    "{name} cannot come on {other_day}, so please hold {goods} until {day}.",
    "We are out of {other_colour}, so {name} will take {goods} on {day} instead.",
)


@dataclass(frozen=True)
class Order:
    """One order of the shop: who wants how many of what, in which colour, and when."""

    name: str
    item: str
    colour: str
    count: int
    day: str

    @property
    def count_word(self) -> str:
        """The count as a word, such as "two"."""
        return COUNT_WORDS[self.count - 1]

    @property
    def things(self) -> str:
        """The item in the grammatical number that fits the count."""
        return self.item if self.count == 1 else ITEMS[self.item]


def draw_order(rng: random.Random) -> Order:
    """Draw an order, every field uniformly and independently of the others."""
    return Order(
        name=rng.choice(NAMES),
        item=rng.choice(tuple(ITEMS)),
        colour=rng.choice(COLOURS),
        count=rng.randrange(1, len(COUNT_WORDS) + 1),
        day=rng.choice(DAYS),
    )


def is_reserved(order: Order) -> bool:
    """Say whether an order belongs to the data set (about one in eight does) and must stay out of the corpus."""
    key = "|".join((order.name, order.item, order.colour, str(order.count), order.day))
    return hashlib.sha256(key.encode()).digest()[0] < 32


def draw_other(rng: random.Random, choices: tuple[str, ...], taken: str) -> str:
    """Draw one of ``choices`` that is not ``taken``."""
    return rng.choice(tuple(choice for choice in choices if choice != taken))


def write_note(order: Order, template: str, rng: random.Random) -> str:
    """Fill a sentence of :data:`NOTES` with an order; ``rng`` draws the misleading words, if it has any."""
    goods = f"{order.count_word} {order.colour} {order.things}"
    return template.format(
        name=order.name,
        day=order.day,
        goods=goods,
        goods_in=f"{order.count_word} {order.things} in {order.colour}",
        goods_start=goods.capitalize(),
        other_colour=draw_other(rng, COLOURS, order.colour),
        other_day=draw_other(rng, DAYS, order.day),
    )


def draw_note(order: Order, rng: random.Random) -> str:
    """Write a note of an order in a sentence drawn by chance."""
    return write_note(order, rng.choice(NOTES), rng)
