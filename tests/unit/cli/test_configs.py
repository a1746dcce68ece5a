"""`codex-ml configs` as a user types it."""

from __future__ import annotations


def test_configs_list_shows_names_and_first_lines(command_line, tmp_path) -> None:
    """One line a config on stdout."""
    answer = command_line.run("configs", "list", directory=tmp_path)
    assert answer.returncode == 0, answer.stderr
    lines = dict(line.split("  ", 1) for line in answer.stdout.splitlines())
    assert "LoRA adapter" in lines["examples/minimal"]


def test_configs_show_prints_place_and_file(command_line, tmp_path, repository_root) -> None:
    """The output is the file, led by a comment that says where it lies."""
    answer = command_line.run("configs", "show", "examples/minimal", directory=tmp_path)
    place, text = answer.stdout.split("\n", 1)
    file = repository_root / "configs" / "examples" / "minimal.yaml"
    assert place == f"# {file}"
    assert text == file.read_text("utf-8")


def test_configs_copy_then_validate_is_valid(command_line, tmp_path) -> None:
    """The path on stdout is one that `validate --config` takes; a second copy is refused."""
    copied = command_line.run("configs", "copy", "examples/minimal", "my configs", directory=tmp_path)
    assert copied.returncode == 0, copied.stderr
    assert "--config-dir 'my configs' --config-name minimal" in copied.stderr
    validated = command_line.run("validate", "--config", copied.stdout.rstrip("\n"), directory=tmp_path)
    assert validated.returncode == 0, validated.stderr
    again = command_line.run("configs", "copy", "examples/minimal", "my configs", directory=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert "is there already" in again.stderr
