"""The bill of materials is the same for the same packages, and every difference is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from installed_packages import NO_ANSWER, Package
from make_sbom import COMMITTED, as_text, differences, main, make_sbom, project_package

PACKAGES = {
    "codex-ml": Package("codex-ml", "0.1.0", NO_ANSWER, ("torch",)),
    "torch": Package("torch", "2.0", "BSD-3-Clause", ("nvidia-cublas", "numpy")),
    "numpy": Package("numpy", "2.1", "LicenseRef-BSD", ()),
    "nvidia-cublas": Package("nvidia-cublas", "12", "LicenseRef-NVIDIA", ()),
    "unrelated": Package("unrelated", "1", "MIT", ()),
}


def test_make_sbom_closure_is_described_without_cuda() -> None:
    """What is drawn in, and nothing else that happens to be installed."""
    sbom = make_sbom(PACKAGES, [])
    assert [component["purl"] for component in sbom["components"]] == ["pkg:pypi/numpy@2.1", "pkg:pypi/torch@2.0"]
    assert sbom["components"][0]["licenses"] == [{"license": {"name": "BSD"}}]
    assert sbom["components"][1]["licenses"] == [{"expression": "BSD-3-Clause"}]
    assert {"ref": "pkg:pypi/torch@2.0", "dependsOn": ["pkg:pypi/numpy@2.1"]} in sbom["dependencies"]


def test_as_text_same_packages_are_the_same_bytes() -> None:
    """Whatever order they are found in."""
    backwards = dict(reversed(PACKAGES.items()))
    assert as_text(make_sbom(PACKAGES, [])) == as_text(make_sbom(backwards, []))


@pytest.mark.parametrize(
    ("name", "package", "words"),
    [
        ("torch", Package("torch", "2.1", "BSD-3-Clause", ("numpy",)), "torch: 2.0 (BSD-3-Clause) there, 2.1"),
        ("torch", Package("torch", "2.0", "GPL-3.0-only", ("numpy",)), "GPL-3.0-only"),
        ("torch", Package("torch", "2.0", "BSD-3-Clause", ("unrelated", "numpy")), "unrelated 1: not in"),
        ("torch", Package("torch", "2.0", "BSD-3-Clause", ()), "numpy 2.1: not here"),
        ("numpy", Package("numpy", "2.1", "LicenseRef-BSD", ("torch",)), "required in another way"),
    ],
)
def test_differences_changed_package_is_named(name: str, package: Package, words: str) -> None:
    """Version, licence, one more, one less, another edge."""
    (problem,) = differences(make_sbom(PACKAGES, []), make_sbom({**PACKAGES, name: package}, []))
    assert words in problem


def test_project_package_extras_and_markers_become_requirements() -> None:
    """As the metadata of an installation would have them."""
    project = {"version": "1", "dependencies": ["a>=1"], "optional-dependencies": {"more": ["b", "c ; os_name == 'x'"]}}
    package = project_package(project)
    assert package.requires == ("a>=1", "b ; extra == 'more'", "c ; (os_name == 'x') and extra == 'more'")
    assert package.version == "1"


@pytest.mark.parametrize("packages", [{}, {"codex-ml": Package("codex-ml", "1", "MIT", ())}])
def test_make_sbom_of_nothing_raises(packages: dict[str, Package]) -> None:
    """An environment without the package, or one that requires nothing."""
    with pytest.raises(ValueError, match="require"):
        make_sbom(packages, [])


def test_main_check_compares_and_leaves_the_committed_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing, the same, and another version."""
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nversion = "1"\ndependencies = ["planted"]\n[project.optional-dependencies]\nmore = []\n'
    )
    # What is installed of the checkout is old: it requires nothing yet.
    for name, version, requires in (("codex-ml", "0.9", ""), ("planted", "1.0", "")):
        directory = tmp_path / "site" / f"{name}-{version}.dist-info"
        directory.mkdir(parents=True)
        (directory / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n{requires}")
    arguments = ["--root", str(tmp_path), "--site-packages", str(tmp_path / "site")]
    assert main([*arguments, "--check"]) == 1
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    committed = json.loads((tmp_path / COMMITTED).read_text())
    committed["components"][0]["version"] = "0.9"
    (tmp_path / COMMITTED).write_text(json.dumps(committed))
    assert main([*arguments, "--check"]) == 1
    assert "make sbom" in capsys.readouterr().out
    assert json.loads((tmp_path / COMMITTED).read_text()) == committed
