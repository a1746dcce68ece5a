"""Write the data set of the example: order notes in plain English, each with the one line that the shop's book wants.

The same arguments give the same bytes on every machine: all chance comes from one seeded generator, and nothing depends
on the order of a set or on PYTHONHASHSEED.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orders import NAMES, NOTES, Order, draw_order, is_reserved, write_note

if TYPE_CHECKING:
    from collections.abc import Sequence


def entry(order: Order) -> str:
    """Give the line of the order book: the answer that a reader can check against the note at a glance."""
    return f"name: {order.name} | item: {order.item} | colour: {order.colour} | count: {order.count} | day: {order.day}"


def make_records(count: int, seed: int) -> list[dict[str, str]]:
    """Make ``count`` prompt/completion records, no two of them of the same order or with the same prompt.

    Sentences and names take turns, so that each is as frequent as the others; the remaining fields are drawn.
    """
    rng = random.Random(seed)
    seen: set[Order] = set()
    records: list[dict[str, str]] = []
    while len(records) < count:
        turn, lap = len(records), len(records) // len(NAMES)
        order = replace(draw_order(rng), name=NAMES[turn % len(NAMES)])
        if order in seen or not is_reserved(order):
            continue
        seen.add(order)
        note = write_note(order, NOTES[(turn + lap) % len(NOTES)], rng)
        records.append({"prompt": note, "completion": entry(order)})
    rng.shuffle(records)
    return records


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("data.jsonl"), help="file to write")
    parser.add_argument("--records", type=int, default=900, help="number of records")
    parser.add_argument("--seed", type=int, default=20, help="seed of the generator")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file and say what was written."""
    arguments = parse_arguments(argv)
    records = make_records(arguments.records, arguments.seed)
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    arguments.output.write_text(lines, encoding="utf-8", newline="\n")
    print(f"{arguments.output}: {len(records)} records, {len(lines.encode())} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
