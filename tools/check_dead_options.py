"""Every option of the configuration is read by something: a field of the schema that no code reads is an error.

A field counts as read where code outside ``config/schema/`` takes the attribute from something that is that section by
its name (``config.training.max_steps``, ``self._training.max_steps``), by its annotation (``data: DataSection``) or
by assignment (``settings = config.training``). What is read in another way stands in `READ_OTHERWISE` with the code
that reads it; an entry whose code is gone is an error.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from codex_ml.config.messages import subsection
from codex_ml.config.schema.base import Section
from codex_ml.config.schema.root import TrainConfig
from tracked_files import report, tracked_files

SCHEMA = "src/codex_ml/config/schema/"
_PIPELINE = ("src/codex_ml/data/sources.py", "getattr(data, name)")
_ADAPTER = ("src/codex_ml/recipes/train/setup.py", "adapter.model_dump()")
READ_OTHERWISE: dict[str, tuple[str, str]] = {
    "schema_version": ("src/codex_ml/config/migrations.py", '"schema_version"'),
    "data.train": _PIPELINE,
    "data.valid": _PIPELINE,
    "data.test": _PIPELINE,
    # All that is left of the section goes to apply_lora, which refuses a key it does not know.
    "adapter.task_type": _ADAPTER,
    "adapter.r": _ADAPTER,
    "adapter.alpha": _ADAPTER,
    "adapter.dropout": _ADAPTER,
    "adapter.bias": _ADAPTER,
    "adapter.target_modules": _ADAPTER,
}


def options_of(section: type[Section], prefix: str = "") -> dict[str, tuple[str, str]]:
    """Return for each dotted key the class and the last name of the section that holds it."""
    options: dict[str, tuple[str, str]] = {}
    for name, field in section.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        below = subsection(field)
        if below is None:
            options[key] = (section.__name__, prefix.rpartition(".")[2])
        else:
            options.update(options_of(below, key))
    return options


def reads_in(source: str) -> set[tuple[str, str]]:
    """Return (owner, attribute) of each attribute that code reads.

    The owner is the last name before the attribute without leading underscores, and where that name is annotated or
    assigned from an attribute in the same file, the annotation and that attribute's name too.
    """
    tree = ast.parse(source)
    other_names: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            other_names.setdefault(node.arg, set()).add(ast.unparse(node.annotation))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            other_names.setdefault(node.target.id, set()).add(ast.unparse(node.annotation))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    other_names.setdefault(target.id, set()).add(node.value.attr)
    reads = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = _last_name(node.value)
            owners = {owner.lstrip("_"), *other_names.get(owner, ())} if owner is not None else set()
            reads |= {(one, node.attr) for one in owners}
    return reads


def unread_options(
    options: Mapping[str, tuple[str, str]], reads: Iterable[tuple[str, str]], config_classes: Sequence[str]
) -> list[str]:
    """Return the keys that nothing reads.

    Parameters
    ----------
    options : mapping
        From `options_of`.
    reads : iterable of (str, str)
        From `reads_in`, of all files.
    config_classes : sequence of str
        What a value may be annotated with, or be called, that holds the keys of the root.
    """
    known = set(reads)
    unread = []
    for key, (class_name, section_name) in options.items():
        owners = (class_name, section_name) if section_name else (class_name, *config_classes)
        if not any((owner, key.rpartition(".")[2]) in known for owner in owners):
            unread.append(key)
    return unread


def problems_in(root: Path) -> list[str]:
    """Return the dead options of a checkout, and the entries of `READ_OTHERWISE` that no longer hold."""
    files = [file for file in tracked_files(root, "src/*.py") if SCHEMA not in file.as_posix()]
    reads = {read for file in files for read in reads_in(file.read_text(encoding="utf-8"))}
    options = options_of(TrainConfig)
    unread = unread_options(options, reads, ("config", "TrainConfig", "EvaluateConfig", "RunConfig"))
    problems = [
        f"{key}: nothing reads it: delete it, or make it do something" for key in unread if key not in READ_OTHERWISE
    ]
    for key, (file, code) in READ_OTHERWISE.items():
        if key not in options:
            problems.append(f"{key}: in READ_OTHERWISE, and no option")
        elif not (root / file).is_file() or code not in (root / file).read_text(encoding="utf-8"):
            problems.append(f"{key}: READ_OTHERWISE says {file} reads it by {code}, which is not there")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a checkout and return the exit code."""
    parser = argparse.ArgumentParser(description="Finds options of the configuration that nothing reads.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    problems = problems_in(parser.parse_args(arguments).root)
    return report(problems, f"{len(options_of(TrainConfig))} options")


def _last_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


if __name__ == "__main__":
    sys.exit(main())
