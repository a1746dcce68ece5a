"""Reads the records of a run again - files, splits, membership, account - for `runs verify`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codex_ml.config.schema.data import DataSection
from codex_ml.data.manifest import without_membership
from codex_ml.data.sources import SourceRecord, open_sources
from codex_ml.errors import DataError
from codex_ml.runs.layout import RunLayout
from codex_ml.runs.verification import Check, compare, compare_trees, mapping
from codex_ml.storage import file_digest
from codex_ml.untrusted import MAX_MEMBERSHIP_BYTES, read_json

# One line a record: room for some thirty million.
_CONTENT = "over token ids; runs reproduce makes them again"


def check_data(config: DataSection | None, layout: RunLayout, provenance: Mapping[str, Any]) -> list[Check]:
    """Hold the data files of a run, the splits they were divided into, and both accounts of them against each other."""
    try:
        manifest = read_json(layout.data_splits, MAX_MEMBERSHIP_BYTES, follow_links=False)
        recorded = without_membership(manifest)
    except FileNotFoundError:
        return [Check("data", "missing", note="data_splits.json")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [Check("data", "differs", note=f"data_splits.json is damaged: {error}")]
    checks = compare_trees("data", provenance.get("data"), recorded, "provenance and data_splits.json say the same")
    if config is None:
        return [*checks, Check("data.splits", "unchecked", note="config.yaml does not say where the files lie")]
    if config.path is not None:
        wanted = {
            "seed": config.split.seed,
            "ratios": list(config.split.ratios),
            "group_by": config.split.group_by,
            "exact_sizes": config.split.exact_sizes,
        }
        checks += compare_trees("data.split", manifest.get("split"), wanted, "as in config.yaml")
    by_file: dict[Path | None, list[str]] = {}
    for name in manifest["splits"]:
        by_file.setdefault(config.path or getattr(config, name, None), []).append(name)
    for file, names in by_file.items():
        checks += _check_file(config, file, {name: mapping(manifest["splits"][name]) for name in names})
    return checks


def check_account(layout: RunLayout, provenance: Mapping[str, Any], trainer: Mapping[str, Any]) -> list[Check]:
    """See that ``data_account.json`` adds up, and fits the splits and the newest checkpoint."""
    key = "data_account.json"
    try:
        account = read_json(layout.data_account, follow_links=False)
        checks = [_check_sums(f"{key}.{name}", counts) for name, counts in account["splits"].items()]
        checks += [_check_lines(f"{key}.files.{file['name']}", file) for file in account.get("files", ())]
        run = account.get("run")
        if run is not None:
            parts = run["trained"] + run["masked"] + run["padding"]
            checks.append(compare(f"{key}.run", run["positions_computed"], parts, "positions computed"))
    except FileNotFoundError:
        return [Check(key, "missing")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [Check(key, "differs", note=f"it is damaged: {error!r}")]
    splits = mapping(mapping(provenance.get("data")).get("splits"))
    for name, split in splits.items():
        kept = mapping(mapping(account["splits"].get(name)).get("records")).get("kept")
        checks.append(compare(f"{key}.{name}.records.kept", mapping(split).get("records"), kept))
    if run is not None and trainer:
        for name, counter in (
            ("trained", "trained_tokens"),
            ("masked", "masked_tokens"),
            ("padding", "padding_tokens"),
        ):
            checks.append(compare(f"{key}.run.{name}", run[name], trainer.get(counter), "as in the newest checkpoint"))
    return checks


def _check_sums(key: str, counts: Mapping[str, Any]) -> Check:
    records, tokens = counts["records"], counts["tokens"]
    parts = records["kept"] + sum(records["dropped"].values())
    of_tokens = tokens["supervised"] + tokens["masked"] + tokens["truncated"] + tokens["in_dropped_records"]
    if records["read"] == parts and tokens["tokenised"] == of_tokens:
        return Check(key, "agrees", note="every row and token is accounted for")
    return Check(key, "differs", [records["read"], tokens["tokenised"]], [parts, of_tokens], "the sums of its parts")


def _check_lines(key: str, file: Mapping[str, Any]) -> Check:
    """See that every line of a file was kept or left out for a reason; accounts of older runs do not say."""
    records = file.get("records")
    if records is None:
        return Check(key, "unchecked", note="the run is older than this account of lines")
    parts = records["kept"] + sum(records["dropped"].values())
    if records["read"] == parts:
        return Check(key, "agrees", note="every line is accounted for")
    return Check(key, "differs", records["read"], parts, "the sum of its parts")


def _check_file(config: DataSection, path: Path | None, splits: Mapping[str, Mapping[str, Any]]) -> list[Check]:
    """Check one data file, and every split that was taken from it."""
    keys = [f"data.splits.{name}" for name in splits]
    if path is None:
        return [Check(f"{key}.source", "differs", note="config.yaml names no file for this split") for key in keys]
    if not path.is_file():
        why = f"there is no file {path}; name where it lies now with --data FILE (--data train=FILE …)"
        return [Check(f"{key}.source", "unchecked", note=why) for key in keys]
    found = {"digest": file_digest(path), "bytes": path.stat().st_size}
    checks: list[Check] = []
    for key, split in zip(keys, splits.values(), strict=True):
        source = mapping(split.get("source"))
        checks += [compare(f"{key}.source.{name}", source.get(name), value) for name, value in found.items()]
        if source.get("name") != path.name:
            checks.append(
                Check(f"{key}.source.name", "noted", source.get("name"), path.name, "the file has another name")
            )
    try:
        # The very reader and the very division of training.
        found_again = _read_again(config, splits)
        for key, (name, split) in zip(keys, splits.items(), strict=True):
            checks += _check_records(key, split, found_again[name])
    except (DataError, ValueError, TypeError) as error:
        why = error.what if isinstance(error, DataError) else str(error)
        return [*checks, *(Check(f"{key}.membership", "differs", note=f"it cannot be divided: {why}") for key in keys)]
    return checks


class _FoundAgain:
    """How many of the recorded places of a split hold a record of it, and the digest of these."""

    def __init__(self, split: Mapping[str, Any]) -> None:
        self._places = frozenset(split.get("offsets", ()))
        self._hasher = hashlib.sha256()
        self.count = 0

    def take(self, record: SourceRecord) -> None:
        """Take a record that falls into the split now."""
        if record.offset in self._places:
            self._hasher.update(record.raw + b"\n")
            self.count += 1

    @property
    def digest(self) -> str:
        """SHA-256 over the bytes of the records at their places."""
        return f"sha256:{self._hasher.hexdigest()}"


def _read_again(config: DataSection, splits: Mapping[str, Mapping[str, Any]]) -> dict[str, _FoundAgain]:
    """Read the files and divide them again, one record at a time."""
    found = {name: _FoundAgain(split) for name, split in splits.items()}
    for source in open_sources(config, list(splits)):
        for name, record in source:
            found[name].take(record)
    return found


def _check_records(key: str, split: Mapping[str, Any], found: _FoundAgain) -> list[Check]:
    """See that every record of a split is in it when the file is divided again, at its place and with its bytes."""
    places, seen = list(split.get("offsets", ())), found.count
    checks = [
        compare(f"{key}.digest", split.get("digest"), found.digest, "bytes of its records"),
        Check(f"{key}.content_digest", "noted", split.get("content_digest"), note=_CONTENT),
    ]
    if len(places) != split.get("records"):
        checks.append(compare(f"{key}.membership", split.get("records"), len(places), "records and recorded offsets"))
    elif seen != len(places):
        note = f"{len(places) - seen} of {len(places)} records are no longer at their place, or in another split now"
        checks.append(Check(f"{key}.membership", "differs", note=note))
    else:
        checks.append(Check(f"{key}.membership", "agrees", note=f"{seen} records, each at its place and in its split"))
    return checks
