"""The lock file."""

from __future__ import annotations

from pathlib import Path

from lock import HEADER, constraints_of, torch_requirement


def test_constraints_of_frozen_leaves_out_what_other_machines_lack() -> None:
    """The checkout, pip, comments and the local part of a version stand in no constraint."""
    frozen = "torch==2.13.0+cpu\n# Editable install\n-e git+file:///x#egg=codex_ml\npip==26\ncodex-ml==0.1.0\nAbc==1\n"
    assert constraints_of(frozen) == HEADER + "Abc==1\ntorch==2.13.0\n"


def test_constraints_of_own_file_is_unchanged(repository_root: Path) -> None:
    """The file in the repository is of this form."""
    text = (repository_root / "constraints.txt").read_text(encoding="utf-8")
    assert constraints_of(text) == text


def test_torch_requirement_of_this_project_is_bounded(repository_root: Path) -> None:
    """The newest torch, put in first and taken back afterwards, left its CUDA packages in the lock."""
    requirement = torch_requirement((repository_root / "pyproject.toml").read_text(encoding="utf-8"))
    assert requirement.startswith("torch>=")
    assert ",<" in requirement
    text = '[project]\ndependencies = ["torchmetrics>=1", "torch-geometric", "torch==2.13.0"]'
    assert torch_requirement(text) == "torch==2.13.0"
