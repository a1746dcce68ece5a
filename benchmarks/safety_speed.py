"""Measures how fast a safety policy reads prose, and how long text takes that is made to keep its patterns busy."""

from __future__ import annotations

import argparse
import random
import re
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from safety_set.negatives import ordinary_texts

from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import load_policy

# One pattern of the kind people filter with, in Python's own matcher: what the whole policy is compared with.
_ONE_PATTERN = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")
_PUMPS = (
    *(
        "a",
        "1",
        "@",
        "a@",
        "a@a.",
        " ",
        ".",
        "AKIA",
        "sk-",
        "eyJ",
        "eyJhbGciOiJI.",
        "password=",
        "password: a1 ",
        "://a:b",
    ),
    *(
        "-----BEGIN PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE" + " KEY-----\nMIIEabcdefgh\n",
        "4111 ",
        "4111",
        "+1 ",
        "+49 30 ",
    ),
    *(
        "1.2.",
        "12.34.56.78.",
        "ab:",
        "::",
        '"\'"',
        "[REDACTED:",
        "[REDACTED:email]",
        "中",
        "e\u0301",
        "do not ",
        "key=",
    ),
)


def processor_seconds(work: Callable[[str], object], records: Sequence[str]) -> float:
    """Return how long the records keep this thread's processor busy."""
    started = time.process_time()
    for record in records:
        work(record)
    return time.process_time() - started


def records_of(text: str, characters: int) -> list[str]:
    """Cut a text into records of about a length, at blanks."""
    records = []
    start = 0
    while start < len(text):
        end = text.find(" ", start + characters)
        end = len(text) if end < 0 else end
        records.append(text[start:end])
        start = end
    return records


def measure_prose(filters: SafetyFilters, text: str, lengths: Sequence[int], repeats: int) -> None:
    """Print MB/s for records of several lengths: the first pass, which builds the automata, and the best later one."""
    megabytes = len(text.encode()) / 1e6
    print(
        f"prose, {megabytes:.1f} MB: characters a record, first pass MB/s, later passes MB/s, one pattern of `re` MB/s"
    )
    for characters in lengths:
        records = records_of(text, characters)
        policy = [megabytes / processor_seconds(filters.apply, records) for _ in range(1 + repeats)]
        alone = max(megabytes / processor_seconds(_ONE_PATTERN.findall, records) for _ in range(repeats))
        print(f"{characters:>6} {policy[0]:8.1f} {max(policy[1:]):8.1f} {alone:8.1f}")


def measure_baits(filters: SafetyFilters, characters: int) -> None:
    """Print seconds for each bait, and how far memory grew."""
    generator = random.Random(5)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    baits = {repr(pump): pump * (characters // len(pump)) for pump in _PUMPS}
    baits["random base64"] = "".join(generator.choices(alphabet, k=characters))
    baits["random digits"] = "".join(generator.choices("0123456789 -.", k=characters))
    print(f"baits of {characters:,} characters: processor seconds, action, findings")
    for name, bait in baits.items():
        started = time.process_time()
        filtered = filters.apply(bait)
        seconds = time.process_time() - started
        print(f"{name:45} {seconds:8.2f} {filtered.action:6} {len(filtered.findings):>8,}", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024:,} MiB")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="default", help="name or file of the policy")
    parser.add_argument("--text", type=Path, help="prose to read (default: the ordinary texts of the labelled set)")
    parser.add_argument("--repeats", type=int, default=3, help="passes after the first; the best counts")
    parser.add_argument(
        "--bait-characters", type=int, default=10_000_000, help="length of each bait; 0 leaves them out"
    )
    options = parser.parse_args()
    filters = SafetyFilters(load_policy(options.policy))
    if options.text is None:
        texts = [item.text for item in ordinary_texts()]
        text = " ".join(texts * max(1, 2_000_000 // sum(map(len, texts))))
    else:
        text = options.text.read_text(encoding="utf-8")
    measure_prose(filters, text, (200, 1_000, 10_000), options.repeats)
    if options.bait_characters:
        measure_baits(filters, options.bait_characters)


if __name__ == "__main__":
    main()
