"""Parts of the full tests run one by one, and a part that has passed on this tree is not run again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from run_full_tests import PARTS, main, run_parts


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a checkout of one file."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text(".cache/\n")
    (tmp_path / "a.py").write_text("A = 1\n")
    return tmp_path


class Runner:
    """Records the commands of parts; the named parts fail."""

    def __init__(self, *failing: str) -> None:
        self.ran: list[str] = []
        self._failing = failing

    def __call__(self, command: tuple[str, ...]) -> int:
        """Record the part and return its exit code."""
        (part,) = (name for name, known in PARTS.items() if known == command)
        self.ran.append(part)
        return 1 if part in self._failing else 0


def test_parts_failed_part_runs_again_and_passed_ones_do_not(tree: Path) -> None:
    """A failing part does not stop the parts after it."""
    said: list[str] = []
    first, second = Runner("demo"), Runner()
    assert run_parts(tree, ("wheel", "demo", "kills"), first, said.append) == ["demo"]
    assert run_parts(tree, ("wheel", "demo", "kills"), second, said.append) == []
    assert (first.ran, second.ran) == (["wheel", "demo", "kills"], ["demo"])
    assert [line.split(" in ")[0] for line in said] == [
        "wheel: passed",
        "demo: failed with exit code 1",
        "kills: passed",
        "wheel: passed on this tree before,",
        "demo: passed",
        "kills: passed on this tree before,",
    ]


def test_parts_changed_tree_runs_every_part_again(tree: Path) -> None:
    """What has passed counts for the tree that was tested."""
    run_parts(tree, ("wheel",), Runner(), lambda _: None)
    (tree / "a.py").write_text("A = 2\n")
    again = Runner()
    run_parts(tree, ("wheel",), again, lambda _: None)
    assert again.ran == ["wheel"]


def test_parts_tree_that_changes_while_a_part_runs_does_not_count(tree: Path) -> None:
    """The part has tested neither of the two trees."""

    def change(_command: object) -> int:
        (tree / "a.py").write_text("A = 3\n")
        return 0

    run_parts(tree, ("wheel",), change, lambda _: None)
    (tree / "a.py").write_text("A = 1\n")
    again = Runner()
    run_parts(tree, ("wheel",), again, lambda _: None)
    assert again.ran == ["wheel"]


def test_main_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The message lists the parts that exist."""
    with pytest.raises(SystemExit) as left:
        main(["kill"])
    assert left.value.code == 2
    assert "unknown part 'kill'" in capsys.readouterr().err
