"""Wheel and source archive hold what they should and nothing else, and the wheel works as a user installs it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

for tool in ("build", "hatchling", "pip"):
    pytest.importorskip(tool, reason=f"{tool} is not installed; pip install 'codex-ml[dev]' brings it")

# What a working checkout holds besides, and neither archive may.
LITTER = (
    "src/codex_ml/__pycache__/errors.cpython-311.pyc",
    "src/codex_ml/runs/__pycache__/lock.cpython-311.pyc",
    "configs/.cache/ruff/entry",
    "examples/minimal/corpus.jsonl",
    "examples/minimal/__pycache__/orders.cpython-311.pyc",
    "tests/__pycache__/conftest.cpython-311.pyc",
    "runs/20261122T120000Z-a/run.json",
    ".venv/bin/python",
)


@pytest.fixture(scope="module")
def tree(repository_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout, with litter in it."""
    copy = tmp_path_factory.mktemp("checkout")
    settings = tomllib.loads((repository_root / "pyproject.toml").read_text("utf-8"))
    wanted = settings["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    for name in ("pyproject.toml", ".gitignore", *wanted):
        source = repository_root / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "corpus.jsonl"))
        else:
            shutil.copy(source, copy / name)
    for name in LITTER:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("litter")
    return copy


@pytest.fixture(scope="module")
def offline(isolated_command_line) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a program in an empty network namespace, without the settings of this process."""
    prefix = isolated_command_line.command()[:-3]

    def run(*program: str, directory: Path) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CODEX_ML_", "PIP_"))
        }
        return subprocess.run(
            [*prefix, *program],
            cwd=directory,
            env={**environment, "PIP_NO_INDEX": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )

    return run


@pytest.fixture(scope="module")
def archives(tree: Path, offline, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return (wheel, source archive) as `python -m build` makes them: the wheel out of the source archive."""
    output = tmp_path_factory.mktemp("dist")
    built = offline(*build_command(output, tree), directory=tree)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,), (archive,) = output.glob("*.whl"), output.glob("*.tar.gz")
    return wheel, archive


def build_command(output: Path, tree: Path, *options: str) -> list[str]:
    """Return the command that builds without fetching anything."""
    fixed = ["-m", "build", "--no-isolation", "--skip-dependency-check", "--outdir", str(output)]
    return [sys.executable, *fixed, *options, str(tree)]


@pytest.fixture(scope="module")
def installed(archives: tuple[Path, Path], offline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment of its own that has codex-ml from the wheel, and borrows the libraries of this one."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    answer = offline(
        *(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(archives[0])),
        directory=environment,
    )
    assert answer.returncode == 0, answer.stderr
    # A directory that a .pth file names is searched, but its own .pth files are not read: so the editable install of
    # the checkout, which is one of them, stays out.
    site_packages = environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "libraries.pth").write_text("".join(f"{path}\n" for path in sorted(libraries)))
    return environment


def names_in(wheel: Path) -> set[str]:
    """Return the names of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_wheel_holds_the_package_with_configs_and_examples_only(archives, tree) -> None:
    """Every file of the three places by its name, the mark of a typed package, and nothing that one machine made."""
    names = {name for name in names_in(archives[0]) if ".dist-info/" not in name}
    places = {
        "src/codex_ml": "codex_ml",
        "configs": "codex_ml/_packaged/configs",
        "examples": "codex_ml/_packaged/examples",
    }
    expected = {
        f"{inside}/{file.relative_to(tree / place).as_posix()}"
        for place, inside in places.items()
        for file in (tree / place).rglob("*")
        if file.is_file() and file.relative_to(tree).as_posix() not in LITTER and file.name != ".gitignore"
    }
    assert names == expected
    assert {"codex_ml/py.typed", "codex_ml/_packaged/examples/minimal/model/model.safetensors"} <= names


@pytest.mark.full("wheel")
def test_source_archive_holds_no_litter_and_gives_the_same_wheel(archives, tree, offline, tmp_path) -> None:
    """What is built from the archive is what is built from the checkout, byte for byte."""
    wheel, source = archives
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not names & set(LITTER)
    assert {"pyproject.toml", "README.md", "tests/conftest.py", "configs/default.yaml", "PKG-INFO"} <= names
    built = offline(*build_command(tmp_path, tree, "--wheel"), directory=tree)
    assert built.returncode == 0, built.stdout + built.stderr
    (direct,) = tmp_path.glob("*.whl")
    assert contents(direct) == contents(wheel)


@pytest.mark.full("wheel")
def test_wheel_made_elsewhere_later_is_the_same_bytes(archives, tree, offline, tmp_path) -> None:
    """Other times and rights of the files change nothing, so that two machines can compare digests."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tree, elsewhere, copy_function=shutil.copyfile)
    for file in elsewhere.rglob("*.py"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
        file.chmod(0o660)
    built = offline(*build_command(tmp_path / "dist", elsewhere, "--wheel"), directory=elsewhere)
    assert built.returncode == 0, built.stdout + built.stderr
    (other,) = (tmp_path / "dist").glob("*.whl")
    assert other.read_bytes() == archives[0].read_bytes()


def contents(wheel: Path) -> dict[str, str]:
    """Return the digest of every file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def test_installed_wheel_is_what_runs(installed, offline, tmp_path) -> None:
    """The package comes from the wheel, not from the checkout of this test run."""
    program = (
        "import codex_ml, torch; from importlib.metadata import version; print(codex_ml.__file__, version('codex-ml'))"
    )
    answer = offline(str(installed / "bin" / "python"), "-c", program, directory=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(str(installed))


def test_installed_wheel_trains_and_evaluates_the_example_offline(installed, offline, tmp_path) -> None:
    """From an empty directory, with no network: the command of the README."""
    program = str(installed / "bin" / "codex-ml")
    trained = offline(
        program,
        "train",
        "--config-name=examples/minimal",
        "training.max_steps=3",
        "training.warmup_steps=1",
        "training.eval_steps=3",
        directory=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert trained.stdout.rstrip().endswith(f"outputs: {run}")
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["code"]["git_commit"] is None
    assert provenance["code"]["source_digest"].startswith("sha256:")
    scored = offline(program, "evaluate", "--checkpoint", "best", "eval.metrics=[loss]", directory=tmp_path)
    assert scored.returncode == 0, scored.stderr
    listed = offline(program, "runs", "list", "--json", directory=tmp_path)
    assert [(entry["status"], entry["steps"]) for entry in json.loads(listed.stdout)] == [("FINISHED", 3)]


def test_installed_wheel_gives_a_config_to_start_from(installed, offline, tmp_path) -> None:
    """A copied config is valid, and its paths lead into the installed package."""
    program = str(installed / "bin" / "codex-ml")
    copied = offline(program, "configs", "copy", "examples/minimal", "mine", directory=tmp_path)
    assert copied.returncode == 0, copied.stderr
    validated = offline(program, "validate", "--config", "mine/minimal.yaml", directory=tmp_path)
    assert validated.returncode == 0, validated.stderr
    paths = [
        line.split()[1] for line in (tmp_path / "mine" / "minimal.yaml").read_text().splitlines() if "path: " in line
    ]
    reached = [(tmp_path / "mine" / path).resolve() for path in paths]
    assert [path.name for path in reached] == ["model", "data.jsonl"]
    assert all(path.exists() and path.is_relative_to(installed.resolve()) for path in reached)
