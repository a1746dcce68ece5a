"""The lock file."""

from __future__ import annotations

from pathlib import Path

import pytest

from hashed_lock import Locked, lock_text
from lock import (
    HEADER,
    constraints_of,
    installed_digest,
    is_supported,
    locked_packages,
    packages_of_pylock,
    torch_for_cpus,
    torch_requirement,
)

DIGESTS = [f"{number:064x}" for number in range(6)]


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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a-1.tar.gz", True),
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-cp311-cp311-manylinux_2_28_x86_64.whl", True),
        ("a-1-cp312-cp312-manylinux2014_aarch64.manylinux_2_17_aarch64.whl", True),
        ("a-1-cp314-cp314t-musllinux_1_2_x86_64.whl", True),
        ("a-1-cp38-abi3-manylinux1_x86_64.whl", True),
        ("a-1-cp311-cp311-linux_x86_64.whl", True),
        ("a-1-cp310-cp310-manylinux_2_28_x86_64.whl", False),
        ("a-1-pp310-pypy310_pp73-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp311-cp311-win_amd64.whl", False),
        ("a-1-cp311-cp311-macosx_11_0_arm64.whl", False),
        ("a-1-cp311-cp311-manylinux_2_31_riscv64.whl", False),
        ("a-1-py2-none-any.whl", False),
        ("a-1-py3-none-win32.whl", False),
    ],
)
def test_is_supported_file_is_for_linux_and_python_from_3_11(name: str, expected: bool) -> None:
    """The files cover two architectures and every supported Python version."""
    assert is_supported(name) == expected


def wheel(name: str, digest: str) -> dict[str, object]:
    """Return a wheel in a pylock."""
    return {"url": f"somewhere/{name}", "hashes": {"sha256": digest}}


def test_packages_of_pylock_gives_versions_and_hashes_of_supported_files() -> None:
    """Windows wheels and packages for Windows only are left out; a package without a wheel is marked."""
    document = {
        "packages": [
            {
                "name": "A_b",
                "version": "1",
                "sdist": {"url": "somewhere/a.tar.gz", "hashes": {"sha256": DIGESTS[0]}},
                "wheels": [wheel("a_b-1-py3-none-any.whl", DIGESTS[1]), wheel("a_b-1-py3-none-win32.whl", DIGESTS[2])],
            },
            {"name": "s", "version": "2", "sdist": {"url": "somewhere/s.zip", "hashes": {"sha256": DIGESTS[3]}}},
            {"name": "w", "version": "3", "wheels": [wheel("w-3-py3-none-win32.whl", DIGESTS[4])]},
            {
                "name": "m",
                "version": "4",
                "marker": "sys_platform == 'win32'",
                "wheels": [wheel("m-4-py3-none-any.whl", DIGESTS[5])],
            },
        ]
    }
    found = packages_of_pylock(document)
    assert found == {"a-b": ("1", [DIGESTS[1], DIGESTS[0]], False), "s": ("2", [DIGESTS[3]], True)}
    with pytest.raises(ValueError, match="w: the index has no file"):
        locked_packages(["w"], found, {})
    with pytest.raises(ValueError, match="two versions: 1 and 2"):
        packages_of_pylock({"packages": [{**document["packages"][0]}, {**document["packages"][0], "version": "2"}]})


def test_torch_for_cpus_has_the_builds_that_the_index_does_not_offer(tmp_path: Path) -> None:
    """The lock has the build that pip installed and builds that a site added for the same version."""
    report = {
        "install": [
            {"metadata": {"name": name}, "download_info": {"archive_info": {"hashes": {"sha256": digest}}}}
            for name, digest in (("Jinja2", DIGESTS[1]), ("torch", DIGESTS[2]))
        ]
    }
    assert installed_digest(report, "torch") == DIGESTS[2]
    (torch,) = locked_packages(["torch"], {"torch": ("2.13.0", [DIGESTS[0]], False)}, {"torch": ("core",)})
    file = tmp_path / "lock.txt"
    assert torch_for_cpus(torch, DIGESTS[2], file) == Locked("torch", "2.13.0", (DIGESTS[2],), ("core",))
    file.write_text(lock_text("", [Locked("torch", "2.13.0", (DIGESTS[1],), ("core",))]))
    assert torch_for_cpus(torch, DIGESTS[2], file).digests == (DIGESTS[1], DIGESTS[2])
    file.write_text(lock_text("", [Locked("torch", "2.12.0", (DIGESTS[1],), ("core",))]))
    assert torch_for_cpus(torch, DIGESTS[2], file).digests == (DIGESTS[2],)
