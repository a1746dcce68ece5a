"""Scores a safety policy on the labelled set (recall, precision, what stays), and shows its findings in real text."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from safety_set.format_named import named_positives
from safety_set.format_negatives import format_negatives
from safety_set.format_types import format_positives
from safety_set.further_types_more import ALL_FURTHER
from safety_set.labelled import Labelled
from safety_set.negatives import hard_negatives, ordinary_texts
from safety_set.phrase_cases import PHRASE_CASES, PhraseCase
from safety_set.positives import TYPES, further, positives

from codex_ml.safety.filters import Filtered, SafetyFilters
from codex_ml.safety.policy import load_policy, parse_policy

_AROUND = 60


def score(filters: SafetyFilters, show: list[str]) -> dict[str, Any]:
    """Return the figures of a policy on the set; what was missed or wrongly found is added to ``show`` as lines."""
    by_type: dict[str, Counter[str]] = defaultdict(Counter)
    by_context: dict[str, Counter[str]] = defaultdict(Counter)
    findings = right = 0
    untouched = {}
    for item in (*positives(), *further()):
        filtered = filters.apply(item.text)
        covered = _covered(filtered)
        for span in item.spans:
            found = all(place in covered for place in range(span.start, span.end))
            by_type[span.type]["found" if found else "missed"] += 1
            by_context[item.context]["found" if found else "missed"] += 1
            if not found:
                show.append(f"missed {span.type} in {item.context}: {item.text!r}")
        wanted = {place for span in item.spans for place in range(span.start, span.end)}
        for finding in filtered.findings:
            findings += 1
            if wanted.isdisjoint(range(finding.start, finding.start + finding.length)):
                show.append(f"beside the label, {finding.rule_id}: {item.text!r}")
            else:
                right += 1
    common = {kind.name for kind in (*TYPES, *ALL_FURTHER) if kind.is_common}
    for name, texts in _negatives():
        shown = len(show)
        untouched[name] = _untouched(filters, texts, show), len(texts)
        findings += len(show) - shown
    phrases = [_is_right(case, show) for case in PHRASE_CASES]
    return {
        "positives": sum(sum(counts.values()) for counts in by_type.values()),
        "types": len(by_type),
        "recall": _recall(by_type.values()),
        "recall_common": _recall(counts for name, counts in by_type.items() if name in common),
        "recall_mean_over_types": sum(_recall([counts]) for counts in by_type.values()) / len(by_type),
        "recall_by_type": {name: _recall([counts]) for name, counts in sorted(by_type.items())},
        "recall_by_context": {name: _recall([counts]) for name, counts in sorted(by_context.items())},
        # Of all findings in the whole set, negatives too.
        "precision": right / max(1, findings),
        **{f"{name}_untouched": share for name, (share, _) in untouched.items()},
        **{f"{name}_texts": count for name, (_, count) in untouched.items()},
        "phrase_cases_right": sum(phrases),
        "phrase_cases": len(phrases),
    }


def score_formats(filters: SafetyFilters, show: list[str]) -> dict[str, Any]:
    """Return the recall by type and by format on values in other formats, and the share of untouched negatives."""
    by_type: dict[str, Counter[str]] = defaultdict(Counter)
    by_format: dict[str, Counter[str]] = defaultdict(Counter)
    by_group: dict[str, Counter[str]] = defaultdict(Counter)
    for item in (*format_positives(), *named_positives()):
        covered = _covered(filters.apply(item.text))
        span = item.spans[0]
        # A blank or an invisible character at the border of a value reveals nothing.
        found = all(place in covered for place in range(span.start, span.end) if item.text[place].isalnum())
        for counts in (by_type[span.type], by_format[item.context], by_group[item.context.partition(":")[0]]):
            counts["found" if found else "missed"] += 1
        if not found:
            show.append(f"missed {span.type} in {item.context}: {item.text!r}")
    negatives = format_negatives()
    return {
        "format_positives": sum(counts.total() for counts in by_type.values()),
        "recall_formats": _recall(by_type.values()),
        "recall_formats_by_type": {name: _recall([counts]) for name, counts in sorted(by_type.items())},
        "recall_formats_by_class": {name: _recall([counts]) for name, counts in sorted(by_group.items())},
        "recall_formats_by_format": {name: _recall([counts]) for name, counts in sorted(by_format.items())},
        "format_negatives_untouched": _untouched(filters, negatives, show),
        "format_negatives_texts": len(negatives),
    }


def look_at_prose(filters: SafetyFilters, directory: Path, most_records: int, show: list[str]) -> dict[str, Any]:
    """Return how many findings real texts have; each, with its surroundings, is added to ``show`` to be judged."""
    records = 0
    rules: Counter[str] = Counter()
    for name, record in _records(directory):
        if records == most_records:
            break
        records += 1
        for text in _strings(record):
            for finding in filters.apply(text).findings:
                rules[finding.rule_id] += 1
                end = finding.start + finding.length
                found = f"{text[max(0, finding.start - _AROUND) : finding.start]}⟦{text[finding.start : end]}⟧"
                show.append(f"{name} {finding.rule_id}: {found + text[end : end + _AROUND]!r}")
    return {
        "records": records,
        "findings": rules.total(),
        "findings_per_1000": 1000 * rules.total() / max(1, records),
        "by_rule": dict(rules),
    }


def _negatives() -> tuple[tuple[str, list[Labelled]], ...]:
    return ("hard_negatives", hard_negatives()), ("ordinary", ordinary_texts())


def _untouched(filters: SafetyFilters, texts: list[Labelled], show: list[str]) -> float:
    """Return the share of texts in which nothing is found; each finding is a line of ``show``."""
    untouched = 0
    for item in texts:
        filtered = filters.apply(item.text)
        untouched += filtered.action == "keep"
        show.extend(
            f"wrongly found {finding.rule_id} in {item.context}: "
            f"{item.text[finding.start : finding.start + finding.length]!r} of {item.text[:200]!r}"
            for finding in filtered.findings
        )
    return untouched / len(texts)


def _is_right(case: PhraseCase, show: list[str]) -> bool:
    rule = {"id": "phrase", "kind": "phrase", "description": "of the case", "phrases": list(case.phrases)}
    filters = SafetyFilters(parse_policy(json.dumps({"version": 1, "rules": [rule]}), "case"))
    spans = tuple((f.start, f.start + f.length) for f in filters.apply(case.text).findings)
    if spans != tuple(case.expected_spans):
        show.append(f"phrases {case.phrases!r} in {case.text!r}: {spans} and not {tuple(case.expected_spans)}")
        return False
    return True


def _covered(filtered: Filtered) -> set[int]:
    return {place for f in filtered.findings for place in range(f.start, f.start + f.length)}


def _recall(counts: Iterable[Counter[str]]) -> float:
    total: Counter[str] = Counter()
    for item in counts:
        total += item
    return total["found"] / max(1, total.total())


def _records(directory: Path) -> Iterator[tuple[str, object]]:
    for file in sorted(directory.rglob("*")):
        if file.suffix == ".jsonl":
            with file.open(encoding="utf-8") as lines:
                for line in lines:
                    yield file.name, json.loads(line)
        elif file.suffix in {".txt", ".md"}:
            for paragraph in file.read_text(encoding="utf-8").split("\n\n"):
                yield file.name, paragraph


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def main() -> None:
    """Print the figures, and with ``--misses`` every text that was judged otherwise than labelled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="default", help="name or file of the policy")
    parser.add_argument(
        "--prose", type=Path, help="look for findings in the .jsonl and .txt files of a directory instead"
    )
    parser.add_argument("--records", type=int, default=10_000, help="records to look at with --prose")
    parser.add_argument(
        "--misses", action="store_true", help="print what was judged otherwise than labelled, with text"
    )
    parser.add_argument("--formats", action="store_true", help="score only the values in other formats")
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    options = parser.parse_args()
    filters = SafetyFilters(load_policy(options.policy))
    lines: list[str] = []
    if options.prose is not None:
        figures = look_at_prose(filters, options.prose, options.records, lines)
    else:
        figures = {**({} if options.formats else score(filters, lines)), **score_formats(filters, lines)}
    if options.misses or options.prose is not None:
        print("\n".join(lines))
    print(json.dumps(figures, indent=2, ensure_ascii=False))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
