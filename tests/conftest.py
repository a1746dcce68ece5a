"""What all tests share: offline switches set before any hub library is imported, one thread, tiny models on disk."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from codex_ml.offline import go_offline
from run_full_tests import TEST_PARTS
from tiers import load_profile

# A shell starts what runs in the background with SIGINT ignored, nohup with SIGHUP; the commands under test would
# inherit that, and rightly leave it so. What is tested is a command that was started in the ordinary way.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

go_offline()
# The suite shares few cores, and a fixed thread count keeps sums in one order; children inherit it. Through the
# environment, because torch must not be imported here: half of the tests never need it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

REPOSITORY_ROOT = Path(__file__).resolve().parents[1]
# Its examples and its copy of Unicode are a cache like any other.
set_hypothesis_home_dir(REPOSITORY_ROOT / ".cache" / "hypothesis")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--full``."""
    parser.addoption(
        "--full", choices=TEST_PARTS, help="run this part of `make test-full` instead of the tests of `make test`"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Load the Hypothesis profile of the tier, before the modules with properties are imported."""
    load_profile(full=config.getoption("--full") == "properties")


# After the plugin of Hypothesis, which marks properties.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the chosen tier."""
    chosen = config.getoption("--full")
    parts = [part_of(item, chosen == "properties") for item in items]
    config.hook.pytest_deselected(items=[item for item, part in zip(items, parts, strict=True) if part != chosen])
    items[:] = [item for item, part in zip(items, parts, strict=True) if part == chosen]


def part_of(item: pytest.Item, properties: bool) -> str | None:
    """Return the part of `make test-full` that a test belongs to; None for a test of `make test`."""
    if properties and item.get_closest_marker("hypothesis") is not None:
        return "properties"
    marker = item.get_closest_marker("full")
    if marker is None:
        return None
    (part,) = marker.args
    if part not in TEST_PARTS:
        raise pytest.UsageError(f"{item.nodeid}: unknown part {part!r} (expected one of {', '.join(TEST_PARTS)})")
    return str(part)


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """Return the root of the checkout."""
    return REPOSITORY_ROOT


@pytest.fixture(scope="session")
def tiny_model_maker() -> ModuleType:
    """Return the module ``tools/make_tiny_model.py``, loaded by its location because tools/ is no package."""
    specification = importlib.util.spec_from_file_location(
        "make_tiny_model", REPOSITORY_ROOT / "tools" / "make_tiny_model.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_llama_directory(tiny_model_maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a seeded 2-layer llama (untied head) and its tokenizer; treat it as read-only."""
    return tiny_model_maker.make_tiny_model("llama", tmp_path_factory.mktemp("tiny") / "llama", seed=0)


@pytest.fixture(scope="session")
def tiny_gpt2_directory(tiny_model_maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a seeded 2-layer GPT-2 (tied head, Conv1D) and its tokenizer; treat it as read-only."""
    return tiny_model_maker.make_tiny_model("gpt2", tmp_path_factory.mktemp("tiny") / "gpt2", seed=0)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_llama_directory: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the tiny models: byte-level BPE, pad and end-of-sequence apart, chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama_directory, local_files_only=True)


# What a process takes from its environment only when it starts, or when a library is imported.
_READ_AT_START = ("PYTHON", "LD_", "MALLOC_", "OMP_", "MKL_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "XDG_", "HOME")


class CommandServer:
    """A process that has imported the libraries, and from which commands are forked; started for the first one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._environment = dict(os.environ)
        self._lock = threading.Lock()

    def serves(self, environment: dict[str, str]) -> bool:
        """Tell whether a forked child behaves like a process that is started with an environment."""
        changed = {name for name, _ in environment.items() ^ self._environment.items()}
        return not any(name.startswith(_READ_AT_START) for name in changed)

    def run(
        self, arguments: Sequence[str], directory: Path, environment: dict[str, str], isolated: bool
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        with self._lock, tempfile.TemporaryDirectory() as folder:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, str(REPOSITORY_ROOT / "tests" / "command_server.py")],
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
            order = {
                "arguments": list(arguments),
                "directory": str(directory),
                "environment": environment,
                "stdout": str(stdout),
                "stderr": str(stderr),
                "isolated": isolated,
            }
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            print(json.dumps(order), file=self._process.stdin, flush=True)
            code = int(self._process.stdout.readline())
            said = [file.read_text("utf-8") if file.exists() else "" for file in (stdout, stderr)]
        return subprocess.CompletedProcess(list(arguments), code, *said)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate(timeout=120)


@dataclass(frozen=True)
class CommandLine:
    """Runs the command line of the toolkit, each command in a process of its own.

    Attributes
    ----------
    server : CommandServer
        Forks the processes of `run`, so that they need no seconds for imports.
    isolated : bool
        Put the process into an empty network namespace (loopback down).
    """

    server: CommandServer
    isolated: bool = False

    def command(self, *arguments: str) -> list[str]:
        """Return the full command for a subprocess."""
        program = [sys.executable, "-m", "codex_ml.cli.main", *arguments]
        if not self.isolated:
            return program
        return ["unshare", "-n", *program] if os.geteuid() == 0 else ["unshare", "-rn", *program]

    def run(self, *arguments: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run to the end and return exit code, stdout and stderr."""
        values = {**os.environ, **environment}
        if self.server.serves(values) and not (self.isolated and os.geteuid() != 0):
            return self.server.run(arguments, directory, values, self.isolated)
        return self.run_new(*arguments, directory=directory, **environment)

    def run_new(self, *arguments: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run in a new interpreter, as a user does."""
        return subprocess.run(
            self.command(*arguments),
            cwd=directory,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=500,
        )

    def start(self, *arguments: str, directory: Path) -> subprocess.Popen[str]:
        """Start and return the process; its stderr can be read line by line."""
        return subprocess.Popen(
            self.command(*arguments), cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@pytest.fixture(scope="session")
def command_line() -> Iterator[CommandLine]:
    """Return the command line in the network of this machine."""
    server = CommandServer()
    yield CommandLine(server)
    server.close()


@pytest.fixture(scope="session")
def isolated_command_line(command_line: CommandLine) -> CommandLine:
    """Return the command line in an empty network namespace; skipped with the reason where none can be created."""
    isolated = CommandLine(command_line.server, isolated=True)
    probe = [*isolated.command()[:-3], "true"]
    answer = subprocess.run(probe, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        pytest.skip(f"this machine allows no network namespace: {answer.stderr.strip()}")
    return isolated


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the directory of the real data sets: CODEX_ML_TEST_DATA, or the shared data beside the checkout."""
    named = os.environ.get("CODEX_ML_TEST_DATA")
    directory = Path(named) if named else REPOSITORY_ROOT.parent / "shared" / "data"
    if not directory.is_dir():
        pytest.skip(f"no real data at {directory}; set CODEX_ML_TEST_DATA")
    return directory


@pytest.fixture(scope="session")
def small_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 60 prompt/completion records of our own; treat it as read-only."""
    file = tmp_path_factory.mktemp("records") / "records.jsonl"
    rows = [
        {"prompt": f"What is {number} plus {number + 1}? ", "completion": f"It is {2 * number + 1}, of course."}
        for number in range(60)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
