"""Untrusted model directories: links, special files, sizes and names at any depth, and the files of a checkpoint."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from codex_ml.errors import ModelError
from codex_ml.io.atomic import bytes_digest, file_digest, json_bytes
from codex_ml.models.directory import (
    check_model_directory,
    check_tokenizer_directory,
    extra_tokenizer_digest,
    tokenizer_files_digest,
)
from codex_ml.models.hub_cache import find_snapshot
from codex_ml.runs.tokenizer_files import EXTRA_TEMPLATES, TOKENIZER_FILES
from codex_ml.tracking.provenance import model_identity

pytestmark = pytest.mark.timeout(300)
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture
def model(tiny_llama_directory: Path, tmp_path: Path) -> Path:
    """Return a copy of a valid model that the test may change."""
    return Path(shutil.copytree(tiny_llama_directory, tmp_path / "model"))


@pytest.fixture
def templates(model: Path) -> Path:
    """Return the directory of extra chat templates of the model."""
    (model / EXTRA_TEMPLATES).mkdir()
    return model / EXTRA_TEMPLATES


def _refused(model: Path) -> str:
    messages = set()
    for check in (check_model_directory, lambda path: check_tokenizer_directory(path, "model.path")):
        with pytest.raises(ModelError) as caught:
            check(model)
        messages.add(caught.value.block())
    (message,) = messages
    return message


@pytest.mark.parametrize("name", [f"{EXTRA_TEMPLATES}/env.jinja", f"{EXTRA_TEMPLATES}/notes", "a.png"])
@pytest.mark.parametrize("target", ["/proc/self/environ", "/dev/zero", "../../../../elsewhere"])
def test_link_below_the_directory_that_leads_out_is_refused(model, name, target):
    """Transformers reads extra chat templates, and a checkpoint would contain a copy of the target."""
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).symlink_to(target)
    assert f"{name} is a link that leads out" in _refused(model)


@pytest.mark.parametrize("target", ["/etc", "/proc/self"])
def test_link_to_a_directory_outside_is_refused_unread(model, target):
    """The template directory itself can be a link."""
    (model / EXTRA_TEMPLATES).symlink_to(target)
    assert f"{EXTRA_TEMPLATES} is a link that leads out" in _refused(model)


def test_link_to_a_directory_inside_is_no_directory_of_templates(model):
    """The files were checked only under the real name of the directory."""
    (model / "other").mkdir()
    (model / EXTRA_TEMPLATES).symlink_to("other")
    assert f"{EXTRA_TEMPLATES} is not a directory" in _refused(model)


def test_link_to_its_own_directory_does_not_loop(model):
    """Links to directories are not followed."""
    (model / "self").symlink_to(".")
    assert check_model_directory(model)


@pytest.mark.parametrize("name", [f"{EXTRA_TEMPLATES}/a.jinja", f"{EXTRA_TEMPLATES}/pipe", "pipe"])
def test_pipe_below_the_directory_is_refused_unopened(model, name):
    """Opening a pipe for reading would block."""
    (model / name).parent.mkdir(exist_ok=True)
    os.mkfifo(model / name)
    assert f"{name} is a named pipe" in _refused(model)


def test_template_that_is_a_directory_is_refused(model, templates):
    """Transformers would open it as a file."""
    (templates / "a.jinja").mkdir()
    assert "a.jinja is a directory" in _refused(model)


def test_template_of_a_terabyte_is_refused_unread(model, templates):
    """The check reads the size of the sparse file, not its content."""
    with (templates / "a.jinja").open("wb") as handle:
        handle.truncate(1 << 40)
    assert "a.jinja is longer than" in _refused(model)


def test_files_that_are_too_long_together_are_refused(model):
    """Each file is below the limit for one file."""
    for number in range(5):
        with (model / f"{number}.json").open("wb") as handle:
            handle.truncate(255 << 20)
    assert "bytes together" in _refused(model)


def test_too_many_templates_are_refused(model, templates):
    """Transformers reads and parses each template."""
    for number in range(65):
        (templates / f"{number}.jinja").write_text(TEMPLATE)
    assert "65 chat templates" in _refused(model)


@pytest.mark.parametrize("folder", [".", EXTRA_TEMPLATES])
def test_too_many_entries_are_refused(model, folder):
    """The limit applies to the sum of both directories."""
    (model / folder).mkdir(exist_ok=True)
    for number in range(10_000):
        (model / folder / f"{number}.md").touch()
    assert "more than 10000 files" in _refused(model)


def test_folders_that_no_library_reads_are_not_opened(model):
    """A virtual environment, a git repository or another user's folder may be in the model directory."""
    (model / ".venv" / "bin").mkdir(parents=True)
    (model / ".venv" / "bin" / "python").symlink_to("/usr/bin/python3")
    (model / ".git").mkdir()
    os.mkfifo(model / ".git" / "pipe")
    model.joinpath(*["deep"] * 40).mkdir(parents=True)
    (model / "lost+found").mkdir(mode=0o000)
    (model / EXTRA_TEMPLATES / "unread").mkdir(parents=True)
    (model / EXTRA_TEMPLATES / "unread" / "link").symlink_to("/etc/passwd")
    assert check_model_directory(model)
    assert not model_identity(model)["files"].keys() & {".venv", ".git", "deep", "lost+found", EXTRA_TEMPLATES}


@pytest.mark.parametrize("name", [b"\xff.json", b"additional_chat_templates/\xff.jinja"])
def test_name_that_is_not_utf8_is_refused(model, name):
    """Provenance records names as UTF-8."""
    file = model / os.fsdecode(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text("{}")
    assert "is not UTF-8" in _refused(model)


def test_folders_of_other_formats_are_accepted(model):
    """Downloads contain folders of other formats; nothing in them is read."""
    for name in (".cache/huggingface/download/config.json.metadata", "onnx/model.onnx", "original/params.json"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("x")
    assert check_model_directory(model)


def test_snapshot_in_a_cache_may_hold_extra_templates_as_links_into_its_blobs(model, templates, tmp_path):
    """Each file in the cache is a link to a blob."""
    (templates / "tool_use.jinja").write_text(TEMPLATE)
    snapshot, blobs = (tmp_path / "hub" / "models--a--b" / part for part in ("snapshots/c0ffee", "blobs"))
    (snapshot / EXTRA_TEMPLATES).mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(path for path in model.rglob("*") if path.is_file()):
        shutil.copy(file, blobs / str(number))
        link = snapshot / file.relative_to(model)
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    found = find_snapshot("a/b", "c0ffee", {"HF_HUB_CACHE": str(tmp_path / "hub")})
    assert check_model_directory(found.directory)
    (snapshot / EXTRA_TEMPLATES / "env.jinja").symlink_to("/proc/self/environ")
    assert "leads out" in _refused(found.directory)


def test_digests_of_a_directory_without_extra_files_are_those_of_earlier_versions(model):
    """Provenance and checkpoints of older runs contain these digests."""
    listed = [name for name in TOKENIZER_FILES if (model / name).is_file()]
    before = bytes_digest(json_bytes({**{name: file_digest(model / name) for name in listed}, "eos_token_id": 2}))
    assert tokenizer_files_digest(model, 2) == before
    assert sorted(model_identity(model)["files"]) == sorted(file.name for file in model.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        f"{EXTRA_TEMPLATES}/default.jinja",
        f"{EXTRA_TEMPLATES}/tool_use.jinja",
        *("vocab.txt", "spiece.model", "tokenizer.model.v3", "tekken.json", "qwen.tiktoken", "source.spm", "vocab.bpe"),
    ],
)
def test_every_file_that_a_tokenizer_reads_is_in_the_digests(model, name):
    """Adding or changing the file changes both new digests; the digest of older runs stays the same."""
    older = tokenizer_files_digest(model, 2)

    def digests() -> tuple[str, str]:
        return extra_tokenizer_digest(model), model_identity(model)["digest"]

    without = digests()
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("one")
    added = digests()
    (model / name).write_text("two")
    changed = digests()
    assert all(len({*values}) == 3 for values in zip(without, added, changed, strict=True))
    assert name in model_identity(model)["files"]
    assert tokenizer_files_digest(model, 2) == older


def test_checkpoint_holds_the_template_in_use_and_no_other(model, templates, tmp_path):
    """Only files with known names are copied from the model directory."""
    from codex_ml.models.model_files import write_tokenizer
    from codex_ml.models.registry import load_tokenizer_directory

    (templates / "default.jinja").write_text(TEMPLATE)
    (templates / "tool_use.jinja").write_text("named")
    tokenizer = load_tokenizer_directory(model, "model.path")
    assert tokenizer.chat_template == TEMPLATE
    (tmp_path / "checkpoint").mkdir()
    write_tokenizer(tokenizer, tmp_path / "checkpoint")
    written = sorted(file.name for file in (tmp_path / "checkpoint").iterdir())
    assert written == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    assert (tmp_path / "checkpoint" / "chat_template.jinja").read_text() == TEMPLATE
    assert "named" not in (tmp_path / "checkpoint" / "tokenizer_config.json").read_text()


def test_checkpoint_of_a_tokenizer_with_several_templates_holds_known_names_only(tiny_tokenizer, tmp_path):
    """Without this, transformers writes a folder with the other templates."""
    import copy

    from codex_ml.models.model_files import write_tokenizer

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = {"default": TEMPLATE, "env": "secret"}
    write_tokenizer(tokenizer, tmp_path)
    assert not [file for file in tmp_path.rglob("*") if file.is_dir() or "secret" in file.read_text("utf-8")]
    assert (tmp_path / "chat_template.jinja").read_text() == TEMPLATE


@pytest.mark.parametrize("settings", ['{"vocab": "/etc/passwd"}', '{"merges": "m"}', '{"gguf_file": "x.gguf"}'])
def test_setting_of_a_tokenizer_that_names_a_file_is_refused(model, settings):
    """A string in these settings is the path of a local file."""
    (model / "tokenizer_config.json").write_text(settings)
    assert "names further files to read" in _refused(model)


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("config.json", '{"model_type": "llama", "configuration_files": ["config.4.0.0.json"]}'),
        ("tokenizer_config.json", '{"fast_tokenizer_files": ["tokenizer.4.0.json"]}'),
    ],
)
def test_settings_that_lead_to_another_file_are_refused(model, file, settings):
    """Transformers would read the other file instead of the checked one."""
    (model / file).write_text(settings)
    assert "names further files to read" in _refused(model)
