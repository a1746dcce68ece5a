"""`codex-ml safety`: what a policy holds, what it finds in a text, and what one of its rules looks for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from codex_ml.cli.boundary import guarded, print_json, print_results
from codex_ml.cli.options import AsJson
from codex_ml.errors import DataError, UserError
from codex_ml.io.terminal import write_bytes, write_message

if TYPE_CHECKING:
    from codex_ml.recipes.safety_inspection import TextReport

safety_app = typer.Typer(
    help="List the rules of a safety policy, test it on a text, or explain a rule.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

PolicyOption = Annotated[
    str, typer.Option("--policy", metavar="NAME|FILE", help="Name of a packaged policy, or path of a policy file.")
]


def list_rules(policy: PolicyOption = "default", as_json: AsJson = False) -> None:
    """List the rules of a policy: id, kind, action, how many patterns or phrases, and what each finds."""
    from codex_ml.recipes.safety_inspection import describe_policy
    from codex_ml.safety.policy import load_policy

    described = describe_policy(load_policy(policy))
    if as_json:
        print_json(described)
        return
    rules = described["rules"]
    rows = [("rule", "kind", "action", "patterns", "finds")]
    rows += [
        (rule["id"], rule["kind"], rule["action"], str(rule["patterns"] or rule["phrases"]), rule["description"])
        for rule in rules
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    table = [
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row[:4], widths, strict=True)), row[4]]) for row in rows
    ]
    print_results([*table, "", f"policy {described['policy']}, {len(rules)} rules, {described['digest']}"])


def try_text(
    file: Annotated[str, typer.Argument(metavar="TEXT-FILE", help="UTF-8 text file; - reads standard input.")],
    policy: PolicyOption = "default",
    as_json: AsJson = False,
    redacted: Annotated[
        bool, typer.Option("--redacted", help="Print the redacted text; findings go to stderr.")
    ] = False,
) -> None:
    """Say what a policy finds in a text, by line and column and without content: exit code 2 where it finds any."""
    from codex_ml.recipes.safety_inspection import inspect_text
    from codex_ml.safety.filters import SafetyFilters
    from codex_ml.safety.policy import load_policy

    if as_json and redacted:
        raise UserError(
            "--json and --redacted both print to standard output", fix="give one of them", code="CLI_OPTIONS_CONFLICT"
        )
    loaded = load_policy(policy)
    name = "standard input" if file == "-" else file
    with _opened(file) as source:
        report = inspect_text(name, source, SafetyFilters(loaded), _write if redacted else None)
    if as_json:
        print_json(report.to_json(loaded))
    elif redacted:
        for line in _rendered(report):
            write_message(line)
    else:
        print_results(_rendered(report))
    if report.blocked:
        raise DataError(
            f"{name} could not be judged to its end; the rest counts as found",
            why="a rule broke down on it, or it holds a stretch of more than a million characters without white space",
            fix="divide the long line, or correct the rule that the last finding names",
            code="SAFETY_NOT_JUDGED",
        )
    if report.findings:
        raise DataError(
            f"{name}: {report.findings.total():,} safety findings by the policy {loaded.name!r}",
            fix="take them out of the text, or print it without them: --redacted",
            code="SAFETY_FINDINGS",
        )


def explain(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="Rule id, as in a marker or a finding.")],
    policy: PolicyOption = "default",
    as_json: AsJson = False,
) -> None:
    """Explain one rule: what it finds, what is done then, and what it lets pass."""
    from codex_ml.recipes.safety_inspection import explain_rule
    from codex_ml.safety.policy import load_policy

    explained = explain_rule(load_policy(policy), rule)
    if as_json:
        print_json(explained)
    else:
        print_results(_explained(explained))


safety_app.command("list")(guarded(list_rules))
safety_app.command("test")(guarded(try_text))
safety_app.command("explain")(guarded(explain))

_LABELS = {
    "patterns": "patterns (RE2)",
    "phrases": "phrases (any case, on word borders)",
    "checks": "a match must pass the checks",
    "until": "the span extends to",
    "allow": "stays, where it is exactly",
    "unless_after": "stays right behind",
    "unless_before": "stays right before",
}


def _opened(file: str) -> BinaryIO:
    """Open a text for reading; the caller closes it.

    Raises
    ------
    DataError
        If there is none, or it is no regular file.
    """
    if file == "-":
        return sys.stdin.buffer
    from codex_ml.io.untrusted import UntrustedFileError, open_regular

    try:
        return open_regular(Path(file))
    except (OSError, UntrustedFileError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(
            f"cannot read {file}",
            why=why,
            fix="name a text file in UTF-8, or - for standard input",
            code="FILE_UNREADABLE",
        ) from error


def _write(text: str) -> None:
    # The words of the text and nothing else, byte for byte; line ends of the platform stay out of it.
    write_bytes(text.encode("utf-8"))


def _rendered(report: TextReport) -> Iterator[str]:
    for found in report.places:
        where = f"{report.name}:{found.place.line}:{found.place.column}"
        yield f"{where}: {found.rule_id} ({found.kind}), length {found.length}"
    if report.findings.total() > len(report.places):
        yield f"and {report.findings.total() - len(report.places):,} more"
    counts = ", ".join(f"{rule} {count:,}" for rule, count in sorted(report.findings.items()))
    yield f"{report.name}: {report.characters:,} characters, action {report.action}: {counts or 'nothing found'}"


def _explained(explained: dict[str, Any]) -> Iterator[str]:
    yield f"{explained['id']}: {explained['description']}"
    yield f"kind {explained['kind']}, action {explained['action']}, marker {explained['marker']}"
    if explained["borders"] != "none":
        yield f"borders: a whole {explained['borders']}"
    for key, label in _LABELS.items():
        values = explained[key]
        for value in [values] if isinstance(values, str) else values or ():
            yield f"{label}: {value}"
    for permission in explained["permissions"]:
        yield f"permitted by {permission['id']} ({permission['description']}): {' | '.join(permission['patterns'])}"
    yield f"policy {explained['policy']}, {explained['policy_digest']}"
