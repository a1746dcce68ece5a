"""Names of the files in a model directory that transformers reads for a tokenizer and its chat templates."""

from __future__ import annotations

from pathlib import Path, PurePath

# Below it, transformers reads every NAME.jinja as a chat template; default.jinja replaces chat_template.jinja.
EXTRA_TEMPLATES = "additional_chat_templates"
# Key of the digest over `extra_tokenizer_files` in provenance, manifests and checkpoints; older ones do not have it.
EXTRA_TOKENIZER = "extra_tokenizer_digest"
# Files that the tokenizer digest of a run has always covered; their order is part of old digests.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
# What tokenizer classes of transformers read under other names (`VOCAB_FILES_NAMES`), and older names of theirs.
_OTHER_FILES = frozenset(
    {
        *("vocab.txt", "vocab.bpe", "bpe.codes", "dict.txt", "tekken.json", "emoji.json", "byte_maps.json"),
        *("normalizer.json", "vocab-src.json", "vocab-tgt.json", "target_vocab.json"),
        *("entity_vocab.json", "encoder.json", "word_shape.json", "word_pronunciation.json"),
        *("source.spm", "target.spm", "prophetnet.tokenizer"),
    }
)
_SUFFIXES = (".model", ".tiktoken", ".spm")


def is_extra_template(name: PurePath) -> bool:
    """Tell whether a relative name is that of a chat template beside the main one."""
    return len(name.parts) == 2 and name.parts[0] == EXTRA_TEMPLATES and name.suffix == ".jinja"


def extra_tokenizer_files(directory: Path) -> list[str]:
    """Return the relative names of the files that a tokenizer may read and `TOKENIZER_FILES` does not list, sorted."""
    beside = [entry.name for entry in directory.iterdir() if _is_read(entry.name) and entry.is_file()]
    below = [
        file.relative_to(directory).as_posix()
        for file in (directory / EXTRA_TEMPLATES).glob("*.jinja")
        if file.is_file()
    ]
    return sorted([*beside, *below])


def _is_read(name: str) -> bool:
    if name in TOKENIZER_FILES:
        return False
    return name in _OTHER_FILES or name.endswith(_SUFFIXES) or name.startswith(("tokenizer.", "tokenizer_config."))
