"""The `data` section: which records, how they are read, split and cut."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from codex_ml.config.schema.base import ConfigPath, RelativePath, Rule, Section, Violation

SplitName = Literal["train", "valid", "test"]
RATIO_ORDER: tuple[SplitName, ...] = ("train", "valid", "test")
# Part of keys, of accounts and of messages.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_RATIO_TOLERANCE = 1e-9


def _ratios_sum(split: SplitSection) -> Violation | None:
    total = sum(split.ratios)
    if abs(total - 1.0) <= _RATIO_TOLERANCE:
        return None
    return Violation(
        "ratios",
        f"the shares of train, valid and test sum to {total:g}, not to 1",
        "write three shares that sum to 1, such as data.split.ratios=[0.8,0.1,0.1]",
    )


def _ratios_train(split: SplitSection) -> Violation | None:
    if split.ratios[0] > 0:
        return None
    return Violation("ratios", "the share of train is 0: nothing would be trained on", "make the first one larger")


class SplitSection(Section):
    """How one file is divided into train, valid and test."""

    section_key: ClassVar[str] = "data.split"
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("split-sum", ("ratios",), _ratios_sum),
        Rule("split-train", ("ratios",), _ratios_train),
    )

    ratios: Annotated[
        tuple[
            Annotated[float, Field(ge=0.0, le=1.0)],
            Annotated[float, Field(ge=0.0, le=1.0)],
            Annotated[float, Field(ge=0.0, le=1.0)],
        ],
        Field(strict=False),
    ] = Field(default=(0.8, 0.1, 0.1), description="Shares of train, valid and test; they sum to 1.")
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Key of the hash that assigns records to splits.")
    group_by: str | None = Field(
        default=None,
        min_length=1,
        description=(
            "Field (or path, such as meta.topic) whose equal values stay in one split; prompt means "
            "the prompt in every format."
        ),
    )
    exact_sizes: bool = Field(
        default=False,
        description=("Cut by hash rank to exact sizes; a record that is added later can then move others."),
    )


def _one_source(data: DataSection) -> Violation | None:
    named = [name for name in RATIO_ORDER if getattr(data, name) is not None]
    divided = [name for name in ("path", "files") if getattr(data, name)]
    if len(divided) + bool(named) < 2:
        return None
    ways = [
        {"path": "data.path (one file, split by data.split)", "files": "data.files (several)"}[name] for name in divided
    ]
    if named:
        ways.append(f"{', '.join(f'data.{name}' for name in named)} (split already)")
    return Violation(
        divided[0],
        f"{' and '.join(ways)} are both set",
        "keep one of the ways: set data.path, data.train, data.valid and data.test to null, or data.files to {}",
    )


def _files_together(data: DataSection) -> Violation | None:
    if not data.files or not data.split.exact_sizes:
        return None
    return Violation(
        "split.exact_sizes",
        "exact sizes are cut file by file; a record that is in two of data.files could be assigned to two splits",
        "set data.split.exact_sizes=false, or make one file of them with: codex-ml data prepare",
    )


def _weights_of_files(data: DataSection) -> Violation | None:
    unknown = sorted(set(data.weights) - set(data.files))
    if not unknown:
        return None
    known = ", ".join(data.files) or "none: data.files is empty"
    return Violation("weights", f"{', '.join(unknown)} names no file of data.files", f"use these names: {known}")


def _split_divides(data: DataSection) -> Violation | None:
    # Shares and seed have defaults that mean something, so only keys that the user must have set can be unused.
    idle = [
        name for name, chosen in (("group_by", data.split.group_by), ("exact_sizes", data.split.exact_sizes)) if chosen
    ]
    named = [name for name in RATIO_ORDER if getattr(data, name) is not None]
    if not idle or data.path is not None or data.files or not named:
        return None
    files = ", ".join(f"data.{name}" for name in named)
    settings = {"group_by": "data.split.group_by=null", "exact_sizes": "data.split.exact_sizes=false"}
    return Violation(
        f"split.{idle[0]}",
        f"data.split divides data.path, and the files are split already ({files}): it would do nothing",
        f"set {' and '.join(settings[name] for name in idle)}, or give one file by data.path",
    )


class DataSection(Section):
    """The records: one file to split, or files split already."""

    section_key: ClassVar[str] = "data"
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("data-one-source", ("path", "files", "train", "valid", "test"), _one_source),
        Rule("data-files-together", ("files", "split.exact_sizes"), _files_together),
        Rule("data-weights", ("files", "weights"), _weights_of_files),
        Rule(
            "data-split-divides",
            ("path", "files", "train", "valid", "test", "split.group_by", "split.exact_sizes"),
            _split_divides,
        ),
    )

    path: Annotated[ConfigPath | None, RelativePath()] = Field(
        default=None, description="Data file, divided into train, valid and test by data.split."
    )
    files: Annotated[dict[FileName, ConfigPath], RelativePath()] = Field(
        default_factory=dict,
        description="Named data files, each divided by data.split: {notes: a.jsonl, web: b.jsonl}.",
    )
    weights: dict[str, Annotated[float, Field(gt=0.0, le=100.0)]] = Field(
        default_factory=dict,
        description=(
            "Name in data.files -> number of copies of its training records per epoch; 0.5: every second record."
        ),
    )
    train: Annotated[ConfigPath | None, RelativePath()] = Field(default=None, description="Training data file.")
    valid: Annotated[ConfigPath | None, RelativePath()] = Field(
        default=None, description="Validation data file, evaluated during training."
    )
    test: Annotated[ConfigPath | None, RelativePath()] = Field(
        default=None, description="Test data file for the final evaluation; never used in training."
    )
    format: Literal["auto", "prompt_completion", "messages", "conversations", "text", "instruction"] = Field(
        default="auto", description="Record format; auto: detected from the fields of the first record."
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description=("Field of the format -> field name in the file, such as {prompt: question, completion: answer}."),
    )
    supervise: Literal["all_assistant_turns", "last_assistant_turn"] = Field(
        default="all_assistant_turns",
        description="Turns of a conversation that are supervised; all other tokens are masked.",
    )
    trust_control_tokens_in_text: bool = Field(
        default=False,
        description=(
            "Parse special tokens found in record text (unsafe for untrusted data: text can begin or "
            "end a turn). For conversations that were rendered before."
        ),
    )
    split: SplitSection = Field(default_factory=SplitSection, description="How data.path is divided.")
    max_length_tokens: int = Field(
        default=1024, ge=2, description="Maximum record length in tokens, including end-of-sequence."
    )
    on_overlong: Literal["error", "drop", "truncate_prompt_left", "truncate_completion"] = Field(
        default="error", description="How to handle a longer record; dropped and truncated records are counted."
    )
    max_line_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=1,
        le=1 << 30,
        description="Maximum length of a line (or table row) in bytes.",
    )
    on_bad_record: Literal["error", "drop"] = Field(
        default="error",
        description=("How to handle an invalid record; dropped records are counted and listed in rejects.ndjson."),
    )
    max_bad_share: float = Field(
        default=0.05,
        ge=0.0,
        le=1.0,
        description="Maximum share of rejected records in a split or file; above it the run stops.",
    )
    cache_dir: Annotated[Literal["auto"] | ConfigPath | None, RelativePath(words=frozenset({"auto"}))] = Field(
        default="auto",
        description=("Directory of the token cache; auto: .token-cache in run.output_dir; null: no cache."),
    )
    cache_min_bytes: int = Field(
        default=1 << 20,
        ge=0,
        description="Total size of the data files in bytes below which the token cache is not used.",
    )

    max_overlap_share: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description=(
            "Maximum share of valid or test records that also appear in train (by bytes or tokens); "
            "above it the run stops."
        ),
    )

    @property
    def is_divided(self) -> bool:
        """Whether data.split says which record belongs to which split; else each split has a file of its own."""
        return self.path is not None or bool(self.files)

    def has_split(self, name: SplitName) -> bool:
        """Tell whether a split can hold records: its share is above 0, or its file is named."""
        if self.is_divided:
            return self.split.ratios[RATIO_ORDER.index(name)] > 0
        return getattr(self, name) is not None
