"""Verification of the inputs of a run: model, configuration, provenance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codex_ml.config.run_file import compose_from_run_file
from codex_ml.config.schema.root import TrainConfig
from codex_ml.config.validate import validate_train
from codex_ml.errors import CodexError, ModelError, UserError
from codex_ml.io.atomic import file_digest
from codex_ml.io.untrusted import read_json
from codex_ml.models.directory import extra_tokenizer_digest, model_digest, tokenizer_files_digest
from codex_ml.models.directory_guard import guard_files
from codex_ml.models.source import locate_model
from codex_ml.runs.layout import RunLayout
from codex_ml.runs.run_manifest import RUN_MANIFEST_NAME
from codex_ml.runs.tokenizer_files import EXTRA_TOKENIZER
from codex_ml.runs.verification import Check, compare, compare_trees, mapping
from codex_ml.safety.policy import load_policy
from codex_ml.tracking.provenance import PROVENANCE_VERSION, model_identity

_FILE = "provenance.json"
# What is held against provenance.json alone; other files of a run agree or differ without it.
_PARTS = (
    *("run_id", "started", "config_digest", "seeds", "base_model", "tokenizer", "compute", "safety"),
    *("code", "versions", "platform"),
)


def read_provenance(layout: RunLayout) -> tuple[dict[str, Any], list[Check]]:
    """Return what a run wrote down of itself, empty where it cannot be read, and what is to be said of the file.

    Raises
    ------
    UserError
        If the directory is that of an evaluation.
    """
    try:
        provenance = read_json(layout.provenance, follow_links=False)
    except FileNotFoundError as error:
        if not layout.config.exists():
            raise UserError(
                f"{layout.directory} is not a training run",
                why="it has neither provenance.json nor config.yaml: an evaluation has such a directory",
                fix="name the run whose checkpoint was evaluated",
                code="RUN_NOT_A_TRAINING_RUN",
            ) from error
        return {}, [Check(_FILE, "missing", note="nothing can be held against it")]
    except (OSError, ValueError) as error:
        return {}, [Check(_FILE, "differs", note=f"it is damaged: {error}")]
    version = mapping(provenance).get("provenance_version")
    if version != PROVENANCE_VERSION:
        note = f"written by another version of codex-ml: {version!r}, this one knows {PROVENANCE_VERSION}"
        return mapping(provenance), [Check("provenance_version", "unchecked", PROVENANCE_VERSION, version, note)]
    return provenance, [Check("provenance_version", "agrees", PROVENANCE_VERSION, version)]


def without_provenance(checks: Sequence[Check]) -> list[Check]:
    """Return the checks of a run whose provenance cannot be read: one for each part of it, and those it is idle for.

    Held against nothing, every file of the base model would count as new, and every library as another one.
    """
    kept: dict[str, Check] = {}
    for check in checks:
        part = check.key.partition(".")[0]
        if part in _PARTS or check.key == "data":
            kept.setdefault(part, Check(part, "unchecked", note=f"nothing recorded: {_FILE} cannot be read"))
        elif check.key != f"{RUN_MANIFEST_NAME}.files.{_FILE}" or (_FILE, "missing") not in _states(checks):
            # That it is missing is said of the file itself; its manifest would say it once more.
            kept[check.key] = check
    return list(kept.values())


def _states(checks: Sequence[Check]) -> set[tuple[str, str]]:
    return {(check.key, check.state) for check in checks}


DATA_KEYS = ("path", "train", "valid", "test")
_OF_BASE_MODEL = ("base_model", "compute.base_model_digest", "compute.tokenizer_digest")
_OF_TOKENIZER = ("tokenizer", "compute.tokenizer_digest")
_PROCESS = "says how that process computed; runs reproduce computes again"


@dataclass(frozen=True)
class Moved:
    """Where inputs lie now that no longer lie where the run's configuration says; None for those that do.

    Attributes
    ----------
    data : mapping
        Files by key of the data section: ``path``, ``train``, ``valid``, ``test``.
    """

    model: Path | None = None
    tokenizer: Path | None = None
    policy: Path | None = None
    data: Mapping[str, Path] = field(default_factory=dict)

    def config_values(self) -> dict[str, object]:
        """Return the values of a configuration that say the same.

        Raises
        ------
        UserError
            If a file or directory is not there, or a key is none of the data section.
        """
        unknown = sorted(key for key in self.data if key not in DATA_KEYS and not key.startswith("files."))
        if unknown:
            raise UserError(
                f"--data {unknown[0]}=…: no such key",
                fix=f"write FILE, or one of {', '.join(DATA_KEYS)}, files.NAME",
                code="CLI_OPTION_VALUE",
            )
        named = {"--model": self.model, "--tokenizer": self.tokenizer, "--policy": self.policy}
        for option, path in (*named.items(), *((f"--data {key}", path) for key, path in self.data.items())):
            if path is not None and not path.exists():
                fix = "name where it lies now"
                if option == "--data path" and "=" in str(path):
                    fix += "; a file of data.files is named by --data files.NAME=FILE"
                raise UserError(f"{option}: there is no {path}", fix=fix, code="FILE_NOT_FOUND")
        values: dict[str, object] = {f"data.{key}": path.absolute() for key, path in self.data.items()}
        if self.model is not None:
            values |= {"model.path": self.model.absolute(), "model.name": None, "model.revision": None}
        if self.tokenizer is not None:
            values["model.tokenizer"] = self.tokenizer.absolute()
        if self.policy is not None:
            values["safety.policy"] = self.policy.absolute()
        return values


class DigestOnce:
    """Gives the SHA-256 of files, each read once by this verification; nothing remembered from before is believed."""

    def __init__(self, digest: Callable[[Path], str] = file_digest) -> None:
        self._digest = digest
        self._known: dict[Path, str] = {}

    def __call__(self, path: Path) -> str:
        """Return the digest of a file."""
        if path not in self._known:
            self._known[path] = self._digest(path)
        return self._known[path]


def check_config(
    layout: RunLayout, provenance: Mapping[str, Any], values: Mapping[str, object]
) -> tuple[TrainConfig | None, list[Check]]:
    """Hold ``config.yaml`` against its digest, and return what it says with other places put in.

    The environment of this process does not speak here: the run's file alone does.
    """
    recorded = provenance.get("config_digest")
    if not layout.config.is_file():
        return None, [Check("config_digest", "missing", recorded, note="config.yaml")]
    checks = [compare("config_digest", recorded, file_digest(layout.config), "config.yaml")]
    try:
        config = validate_train(compose_from_run_file("train", layout.config, environment={}, extra_values=values))
    except CodexError as error:
        return None, [*checks, Check("config.yaml", "unchecked", note=f"it cannot be used: {error.block()}")]
    seeds = {"run": config.run.seed, "split": config.data.split.seed}
    return config, [*checks, *compare_trees("seeds", provenance.get("seeds"), seeds, "as in config.yaml")]


def check_base_model(
    config: TrainConfig, provenance: Mapping[str, Any], digest_of: Callable[[Path], str]
) -> list[Check]:
    """Read every file of the base model, and of a tokenizer that lies apart from it."""
    recorded, compute = provenance.get("base_model"), mapping(provenance.get("compute"))
    if config.model.preset is not None:
        made = f"made from preset {config.model.preset} under the seed; runs reproduce makes it again"
        checks = [
            compare("base_model", recorded, None, "made from a preset"),
            Check("compute.base_model_digest", "noted", compute.get("base_model_digest"), note=made),
        ]
        return checks + _check_tokenizer(config, provenance, digest_of)
    checks = []
    if "tokenizer" in provenance:
        checks.append(compare("tokenizer", provenance["tokenizer"], None, "it lies beside the base model"))
    try:
        source = locate_model(config.model)
    except ModelError as error:
        return checks + [Check(key, "unchecked", note=error.what) for key in _OF_BASE_MODEL]
    assert source is not None, "a model that is no preset lies somewhere"
    if not source.directory.is_dir():
        why = f"there is nothing at {source.directory}; name where it lies now with --model DIR"
        return checks + [Check(key, "unchecked", note=why) for key in _OF_BASE_MODEL]
    if (refused := _refused(source.directory, source.key)) is not None:
        return checks + [Check(key, "unchecked", note=refused) for key in _OF_BASE_MODEL]
    checks += _check_files("base_model", mapping(recorded), source.directory, digest_of, EXTRA_TOKENIZER in compute)
    checks.append(
        compare(
            "compute.base_model_digest", compute.get("base_model_digest"), model_digest(source.directory, digest_of)
        )
    )
    return [*checks, *_check_tokenizer_digests(source.directory, compute)]


def check_safety(config: TrainConfig, provenance: Mapping[str, Any]) -> list[Check]:
    """Read the safety policy again, and hold what provenance says of the filters against the configuration."""
    recorded = mapping(provenance.get("safety"))
    checks = [
        compare("safety.enabled", recorded.get("enabled"), config.safety.enabled, "as in config.yaml"),
        compare(
            "safety.bypass_reason", recorded.get("bypass_reason"), config.safety.bypass_reason, "as in config.yaml"
        ),
    ]
    checks.append(_check_bypasses(config, recorded))
    try:
        policy = load_policy(config.safety.policy)
    except CodexError as error:
        why = f"{error.what}; name where it lies now with --policy FILE"
        return [*checks, Check("safety.policy_digest", "unchecked", recorded.get("policy_digest"), note=why)]
    checks.append(compare("safety.policy_digest", recorded.get("policy_digest"), policy.digest))
    if recorded.get("policy") == policy.name:
        return [*checks, Check("safety.policy", "agrees", policy.name, policy.name)]
    note = "another name for it; its digest decides"
    return [*checks, Check("safety.policy", "noted", recorded.get("policy"), policy.name, note)]


def _check_bypasses(config: TrainConfig, recorded: Mapping[str, Any]) -> Check:
    """Check that a bypass of the filters has a user, and the reason of the config."""
    key, bypasses = "safety.bypasses", recorded.get("bypasses")
    if config.safety.enabled:
        return compare(key, bypasses, [], "the filters were on")
    expected = {"reason": config.safety.bypass_reason, "policy_digest": recorded.get("policy_digest")}
    records = [mapping(bypass) for bypass in bypasses] if isinstance(bypasses, list) else []
    if not records:
        return Check(key, "missing", note="the filters were off, and nobody is named who turned them off")
    for record in records:
        if not (record.get("who") and record.get("when")) or any(
            record.get(name) != expected[name] for name in expected
        ):
            return Check(key, "differs", record, expected, "each names who and when, and reason and policy of the run")
    return Check(key, "agrees", note=f"the filters were off; {len(records)} named who turned them off")


def check_compute(provenance: Mapping[str, Any], checked: list[Check]) -> list[Check]:
    """Note what provenance says of the computation that no file can be held against."""
    keys = [f"compute.{name}" for name in mapping(provenance.get("compute"))]
    done = {check.key for check in checked}
    checks = [Check(key, "noted", provenance["compute"][key.partition(".")[2]], note=_PROCESS) for key in keys]
    checks = [check for check in checks if check.key not in done]
    checks += [
        Check(name, "noted", provenance[name], note=_PROCESS)
        for name in ("threads", "environment")
        if name in provenance
    ]
    if earlier := provenance.get("earlier_processes"):
        many = "1 process" if len(earlier) == 1 else f"{len(earlier)} processes"
        note = f"{many} worked on the run before; code, versions and platform are those of the last"
        checks.append(Check("earlier_processes", "noted", note=note))
    return checks


def _check_tokenizer(
    config: TrainConfig, provenance: Mapping[str, Any], digest_of: Callable[[Path], str]
) -> list[Check]:
    directory, compute = config.model.tokenizer, mapping(provenance.get("compute"))
    if directory is None or not directory.is_dir():
        why = f"there is nothing at {directory}; name where it lies now with --tokenizer DIR"
        return [Check(key, "unchecked", note=why) for key in _OF_TOKENIZER]
    if (refused := _refused(directory, "model.tokenizer")) is not None:
        return [Check(key, "unchecked", note=refused) for key in _OF_TOKENIZER]
    recorded = provenance.get("tokenizer")
    if recorded is None:
        checks = [Check("tokenizer", "noted", note="its files are not in the provenance of this run; its digest is")]
    else:
        checks = _check_files("tokenizer", mapping(recorded), directory, digest_of, EXTRA_TOKENIZER in compute)
    return [*checks, *_check_tokenizer_digests(directory, compute)]


def _refused(directory: Path, key: str) -> str | None:
    """Return why no file of a directory is read for its digest; None where all may be."""
    try:
        guard_files(directory, key)
    except ModelError as error:
        return f"{error.what}: {error.why}"
    return None


def _check_tokenizer_digests(directory: Path, compute: Mapping[str, Any]) -> list[Check]:
    key = "compute.tokenizer_digest"
    checks = []
    if EXTRA_TOKENIZER in compute:
        now = extra_tokenizer_digest(directory)
        checks.append(compare(f"compute.{EXTRA_TOKENIZER}", compute[EXTRA_TOKENIZER], now))
    if "eos_token_id" not in compute:
        note = "the run did not record its end-of-sequence id, which is part of it; the files are listed above"
        return [Check(key, "noted", compute.get("tokenizer_digest"), note=note), *checks]
    now = tokenizer_files_digest(directory, compute["eos_token_id"])
    return [compare(key, compute.get("tokenizer_digest"), now), *checks]


def _check_files(
    key: str, recorded: Mapping[str, Any], directory: Path, digest_of: Callable[[Path], str], with_extra: bool
) -> list[Check]:
    """Hold the files of a model directory against those that were recorded, file by file and as a whole."""
    found = model_identity(directory, digest_of=digest_of, with_extra=with_extra)
    before, now = mapping(recorded.get("files")), found["files"]
    checks = []
    for name in sorted({*before, *now}):
        old, new = mapping(before.get(name)).get("digest"), mapping(now.get(name)).get("digest")
        if name not in now:
            checks.append(Check(f"{key}.files.{name}", "missing", old))
        elif name not in before:
            checks.append(Check(f"{key}.files.{name}", "differs", old, new, "it was not there when the run was made"))
        elif before[name] != now[name] and old == new:
            checks.append(compare(f"{key}.files.{name}.bytes", mapping(before[name]).get("bytes"), now[name]["bytes"]))
        else:
            checks.append(compare(f"{key}.files.{name}", old, new))
    checks.append(compare(f"{key}.digest", recorded.get("digest"), found["digest"], f"{len(now)} files"))
    note = f"its directory is called {directory.name} here"
    checks.append(Check(f"{key}.name", "noted", recorded.get("name"), directory.name, note))
    return [
        *checks,
        Check(f"{key}.revision", "noted", recorded.get("revision"), note="the digests of the files decide"),
    ]
