"""Where a value stands: in a sentence, in a file of settings, in code, in a log, in a message."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Context:
    """What stands before and behind a value, and whether that holds for values with quotes or of several lines."""

    name: str
    before: str
    behind: str
    takes_lines: bool = True
    takes_quotes: bool = True


CONTEXTS: tuple[Context, ...] = (
    Context("bare", "", ""),
    Context("sentence", "Please use ", " until Friday and then forget it", takes_lines=False),
    Context("start", "", " was in the old notes of the ward."),
    Context("end", "What I found in the folder: ", ""),
    Context("full_stop", "It ended with ", ".", takes_lines=False),
    Context("comma", "We noted ", ", then went on with the visit", takes_lines=False),
    Context("code_fence", "Try this:\n```\n", "\n```\nand tell me."),
    Context("environment_file", "MODE=production\nEXTRA=", "\nDEBUG=0\n", takes_lines=False),
    Context("yaml", "service:\n  note: ", "\n  retries: 3\n", takes_lines=False),
    Context("json", '{"id": 7, "note": "', '", "done": false}', takes_lines=False, takes_quotes=False),
    Context("escaped_json", '{"log": "{\\"note\\": \\"', '\\"}\\n"}', takes_lines=False, takes_quotes=False),
    Context("python", "note = '", "'\nprint(note)\n", takes_lines=False, takes_quotes=False),
    Context("javascript", "const note = `", "`;\nsend(note);", takes_lines=False),
    Context("shell", "echo ", " | tee note.txt", takes_lines=False, takes_quotes=False),
    Context("log_line", "2024-03-05T10:22:31Z INFO worker[311]: received ", " (retry 2)", takes_lines=False),
    Context("table", "| name | value |\n|---|---|\n| note | ", " |\n", takes_lines=False),
    Context("chat", "User: here it is\n", "\nAssistant: thank you, I have it."),
    Context("html", '<span title="', '">open</span>', takes_lines=False, takes_quotes=False),
    Context("parentheses", "The value (", ") is shown above.", takes_lines=False),
    Context("behind_escape", "first line\\n", "\\nlast line"),
)
