"""Write the text on which the base model of the example is trained: days in the craft shop at Tern Bay.

Every record is one short text: a note of an order (or several), and what follows from it - somebody sums it up, asks
about it, reads it back, chalks it on a board. To continue such a text is to look back for a name or a colour and to say
it again, which is what the base model has to learn. No text holds an order of the data set, and none is in the form
of its answers. The same arguments give the same bytes on every machine.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

from orders import COLOURS, COUNT_WORDS, DAYS, ITEMS, NAMES, Order, draw_note, draw_order, is_reserved

if TYPE_CHECKING:
    from collections.abc import Sequence

SUMMARIES = (
    "So {name} gets {word} {things}, all of it {colour}, on {day}.",
    "In short, {colour} {things} for {name}, {word} of that kind, and the day is {day}.",
    "That makes {word} for {name}. The colour is {colour} and the item is the {item}.",
    "{Colour} is the colour, {day} is the day, and {name} is the name.",
    "The clerk nodded and went to look for the {colour} {things}. {name} was told that {day} is fine.",
    "On {day} the door opened and {name} walked in. On the counter stood {word} {colour} {things}.",
    "Everything was ready on {day}: {word} {things}, {colour} as {name} had asked.",
    "{name} came on {day}, counted to {word}, and carried the {colour} {things} home.",
    "What we have to find is a {item} that is {colour}, and the count is {word}. {name} comes on {day}.",
)
BOARDS = (
    "On the board: {day}, {name}, {count} x {item} ({colour})",
    "Label on the parcel: {name} / {day} / {colour} / {item} / {count}",
    "Shelf ticket\n* {item}\n* {colour}\n* {count}\n* {name}\n* {day}",
    "To do on {day}\n- {count} {things} in {colour}\n- send word to {name}",
    "Chalk marks: {item}, {colour}, {count}. Below them: {name}, {day}.",
    "Stock card; {item}; {colour}; minus {count}; {day}; {name}",
    "{count} - {item} - {colour} - {name} - {day}",
)
QUESTIONS = (
    ("Who is it for?", "{name}."),
    ("What is the name?", "The name is {name}."),
    ("And the name?", "{name}"),
    ("What is the item?", "A {item}."),
    ("Which item?", "{item}"),
    ("What is wanted?", "{things}."),
    ("What colour?", "{Colour}."),
    ("Which colour did they say?", "It was {colour}."),
    ("The colour?", "{colour}"),
    ("How many?", "{Word}."),
    ("What is the count?", "{count}"),
    ("Could you give me the count as a figure?", "{count}."),
    ("For which day?", "{day}."),
    ("When?", "On {day}."),
    ("And the day?", "{day}"),
)
# A scrap of an order, and which of the questions it answers.
FRAGMENTS = (
    ("for {name}", (0, 1, 2)),
    ("{word} {things}", (3, 4, 5, 9, 10, 11)),
    ("in {colour}", (6, 7, 8)),
    ("by {day}", (12, 13, 14)),
)
REPETITIONS = ("Say these words after me:", "Once more, apprentice:", "Read the cards, then say them again:")
CHECKLIST_HEADINGS = ("What the clerk must ask", "Never forget to write down", "Five things to know")
CHECKLIST = ("name", "item", "colour", "count", "day")
PRICE_HEADINGS = ("Prices this week", "What things cost", "Price list by the door")


def tell(template: str, order: Order) -> str:
    """Fill a sentence of the corpus with an order."""
    return template.format(
        name=order.name,
        item=order.item,
        things=order.things,
        colour=order.colour,
        Colour=order.colour.capitalize(),
        count=order.count,
        word=order.count_word,
        Word=order.count_word.capitalize(),
        day=order.day,
    )


def draw_open_order(rng: random.Random) -> Order:
    """Draw an order that is not kept back for the data set."""
    while is_reserved(order := draw_order(rng)):
        pass
    return order


def retold(rng: random.Random) -> str:
    """Tell one order, then sum it up and chalk it on the board, in any order."""
    order = draw_open_order(rng)
    parts = [tell(summary, order) for summary in rng.sample(SUMMARIES, 2)]
    parts += [tell(board, order) for board in rng.sample(BOARDS, 3)]
    rng.shuffle(parts)
    return "\n".join([draw_note(order, rng), *parts])


def dialogue(rng: random.Random) -> str:
    """Tell one order and have somebody ask about it."""
    order = draw_open_order(rng)
    lines = [draw_note(order, rng)]
    for question, answer in rng.sample(QUESTIONS, 8):
        lines.append(f"{question} {tell(answer, order)}")
    return "\n".join(lines)


def read_back(rng: random.Random) -> str:
    """Have a clerk repeat a note word for word, then chalk it on the board."""
    order = draw_open_order(rng)
    note = draw_note(order, rng)
    return f'{note}\nThe clerk read it back: "{note}"\n{tell(rng.choice(BOARDS), order)}'


def busy_day(rng: random.Random) -> str:
    """Tell the orders of three different customers, then chalk them on the board in another order."""
    orders: list[Order] = []
    while len(orders) < 3:
        order = draw_open_order(rng)
        if order.name not in [known.name for known in orders]:
            orders.append(order)
    notes = [draw_note(order, rng) for order in orders]
    template = rng.choice(BOARDS)
    rng.shuffle(orders)
    return "\n".join([*notes, *(tell(template, order) for order in orders)])


def price_list(rng: random.Random) -> str:
    """Write a list of prices and answer a question about one of them."""
    prices = {item: rng.randrange(2, 40) for item in rng.sample(tuple(ITEMS), 5)}
    item = rng.choice(tuple(prices))
    rows = [f"{name} | {price}" for name, price in prices.items()]
    question = f"What do I pay for a {item}? {prices[item]} coins."
    return "\n".join([rng.choice(PRICE_HEADINGS), *rows, question])


def glimpse(rng: random.Random) -> str:
    """Say a scrap of an order and ask about it: so short that the answer is easily found."""
    order = draw_open_order(rng)
    kept = rng.sample(FRAGMENTS, rng.randrange(1, 4))
    scraps = [tell(scrap, order) for scrap, _ in kept]
    question, answer = rng.choice([QUESTIONS[index] for _, indices in kept for index in indices])
    return f"{', '.join(scraps)}. {question} {tell(answer, order)}"


def repetition(rng: random.Random) -> str:
    """Have the apprentice say a few words again: the plainest lesson in looking back."""
    words = rng.sample((*NAMES, *COLOURS, *COUNT_WORDS, *DAYS, *ITEMS, *ITEMS.values()), rng.randrange(1, 9))
    said = ", ".join(words)
    return f"{rng.choice(REPETITIONS)} {said}.\nAgain, {said}."


def counting(rng: random.Random) -> str:
    """Say numbers as words and as figures, or items in the singular and in the plural."""
    if rng.randrange(2):
        pairs = [f"{word} is {count}" for count, word in enumerate(COUNT_WORDS, start=1)]
        return f"The count on our fingers: {', '.join(rng.sample(pairs, 6))}."
    pairs = [f"one {item}, two {things}" for item, things in rng.sample(tuple(ITEMS.items()), 4)]
    return f"The apprentice learns to count: {'; '.join(pairs)}."


def checklist(rng: random.Random) -> str:
    """Write what a clerk must ask, a word on a line.

    Without it the word that opens every answer would be split into a piece that no text holds: the base model would
    never have been trained on that token, and an adapter, which leaves the embedding alone, could not learn to say it.
    """
    return "\n".join([rng.choice(CHECKLIST_HEADINGS), *rng.sample(CHECKLIST, len(CHECKLIST))])


KINDS = (retold, dialogue, read_back, busy_day, price_list, glimpse, repetition, counting, checklist)
WEIGHTS = (22, 18, 8, 6, 2, 20, 20, 4, 3)


def make_texts(count: int, seed: int) -> list[str]:
    """Make ``count`` texts; the kinds are drawn by :data:`WEIGHTS`."""
    rng = random.Random(seed)
    return [rng.choices(KINDS, WEIGHTS)[0](rng) for _ in range(count)]


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("corpus.jsonl"), help="file to write")
    parser.add_argument("--records", type=int, default=12000, help="number of texts")
    parser.add_argument("--seed", type=int, default=10, help="seed of the generator")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file and say what was written."""
    arguments = parse_arguments(argv)
    texts = make_texts(arguments.records, arguments.seed)
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    arguments.output.write_text(lines, encoding="utf-8", newline="\n")
    print(f"{arguments.output}: {len(texts)} records, {len(lines.encode())} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
