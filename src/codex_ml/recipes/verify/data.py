"""Reads the records of a run again - files, splits, membership, account - for `runs verify`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codex_ml.config.paths import is_memory_file
from codex_ml.config.schema.data import DataSection
from codex_ml.data.manifest import membership_of, without_membership
from codex_ml.data.sources import SourceRecord, open_sources
from codex_ml.errors import DataError
from codex_ml.io.atomic import file_digest
from codex_ml.io.untrusted import MAX_MEMBERSHIP_BYTES, read_json
from codex_ml.runs.layout import RunLayout
from codex_ml.runs.verification import Check, compare, compare_trees, mapping

# One line per record: enough for about thirty million.
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
    if config.is_divided:
        wanted = {
            "seed": config.split.seed,
            "ratios": list(config.split.ratios),
            "group_by": config.split.group_by,
            "exact_sizes": config.split.exact_sizes,
        }
        checks += compare_trees("data.split", manifest.get("split"), wanted, "as in config.yaml")
    by_file: dict[tuple[Path | None, ...], list[str]] = {}
    for name, split in manifest["splits"].items():
        if "parts" in split:
            checks.append(_check_weights(f"data.splits.{name}.weights", config, name, split["parts"]))
        by_file.setdefault(_files_of(config, name, mapping(split)), []).append(name)
    for files, names in by_file.items():
        checks += _check_files(config, files, {name: mapping(manifest["splits"][name]) for name in names})
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
        records = mapping(mapping(account["splits"].get(name)).get("records"))
        kept = records.get("kept")
        if isinstance(kept, int):
            kept += records.get("repeated", 0)
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


def _files_of(config: DataSection, name: str, split: Mapping[str, Any]) -> tuple[Path | None, ...]:
    """Return where the files of a split lie as the configuration says it, in the order of the manifest."""
    if "parts" not in split:
        return (config.path or getattr(config, name, None),)
    return tuple(config.files.get(str(mapping(part).get("key")).removeprefix("files.")) for part in split["parts"])


def _check_weights(key: str, config: DataSection, name: str, parts: Sequence[Any]) -> Check:
    """Hold names and weights of the files behind a split against the configuration."""
    recorded = {str(mapping(part).get("key")): mapping(part).get("weight") for part in parts}
    wanted = {f"files.{file}": config.weights.get(file, 1.0) if name == "train" else 1.0 for file in config.files}
    return compare(key, recorded, wanted, "data.files and data.weights of config.yaml")


def _check_files(
    config: DataSection, files: tuple[Path | None, ...], splits: Mapping[str, Mapping[str, Any]]
) -> list[Check]:
    """Check the data files of some splits, and every split that was taken from them."""
    checks: list[Check] = []
    is_there = True
    for number, path in enumerate(files):
        for name, split in splits.items():
            key = f"data.splits.{name}" + (f".parts.{number}" if "parts" in split else "")
            found = _check_file(f"{key}.source", path, mapping(_part(split, number).get("source")))
            is_there &= path is not None and path.is_file()
            checks += found
    if not is_there:
        return checks
    try:
        # The same reader and split code as in training.
        found_again = _read_again(config, splits)
        for name, split in splits.items():
            checks += _check_records(f"data.splits.{name}", split, found_again[name])
    except (DataError, ValueError, TypeError, KeyError) as error:
        why = error.what if isinstance(error, DataError) else str(error)
        keys = [f"data.splits.{name}.membership" for name in splits]
        return [*checks, *(Check(key, "differs", note=f"it cannot be divided: {why}") for key in keys)]
    return checks


def _part(split: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    return mapping(split["parts"][number]) if "parts" in split else split


def _check_file(key: str, path: Path | None, source: Mapping[str, Any]) -> list[Check]:
    """Hold one data file against what is recorded of it."""
    if path is None:
        return [Check(key, "differs", note="config.yaml names no file for this split")]
    if is_memory_file(path) and not path.is_file():
        why = "the records were passed in memory and are not on disk; name a file that holds them with --data FILE"
        return [Check(key, "unchecked", note=why)]
    if not path.is_file():
        why = f"there is no file {path}; name where it lies now with --data FILE (train=FILE, files.NAME=FILE …)"
        return [Check(key, "unchecked", note=why)]
    checks = [
        compare(f"{key}.digest", source.get("digest"), file_digest(path)),
        compare(f"{key}.bytes", source.get("bytes"), path.stat().st_size),
    ]
    recorded = str(source.get("name"))
    if recorded != path.name and not recorded.endswith(f":{path.name}"):
        checks.append(Check(f"{key}.name", "noted", recorded, path.name, "the file has another name"))
    return checks


class _FoundAgain:
    """How many of the recorded places of a split hold a record of it, and the digest of these."""

    def __init__(self, split: Mapping[str, Any]) -> None:
        self._places = {key: frozenset(offsets) for key, _, offsets in membership_of(split)}
        self.wanted = sum(len(offsets) for _, _, offsets in membership_of(split))
        self._hasher = hashlib.sha256()
        self.count = 0

    def take(self, key: str, record: SourceRecord) -> None:
        """Take a record of a file that falls into the split now."""
        if record.offset in self._places.get(key, ()):
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
            found[name].take(source.key if config.files else "", record)
    return found


def _check_records(key: str, split: Mapping[str, Any], found: _FoundAgain) -> list[Check]:
    """See that every record of a split is in it when the file is divided again, at its place and with its bytes."""
    wanted, seen = found.wanted, found.count
    checks = [
        compare(f"{key}.digest", split.get("digest"), found.digest, "bytes of its records"),
        Check(f"{key}.content_digest", "noted", split.get("content_digest"), note=_CONTENT),
    ]
    if "parts" not in split and wanted != split.get("records"):
        checks.append(compare(f"{key}.membership", split.get("records"), wanted, "records and recorded offsets"))
    elif seen != wanted:
        note = f"{wanted - seen} of {wanted} records are no longer at their place, or in another split now"
        checks.append(Check(f"{key}.membership", "differs", note=note))
    else:
        checks.append(Check(f"{key}.membership", "agrees", note=f"{seen} records, each at its place and in its split"))
    return checks
