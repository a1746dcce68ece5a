"""Makes the example's base model again: corpus, tokenizer, pretraining through `codex-ml train`, copy into model/."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What a model directory needs; the training state of the checkpoint stays behind.
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
SIZE_LIMIT_BYTES = 8 * 10**6


def main() -> int:
    """Parse the command line and make the model; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE / "model", help="directory that receives the model")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides for the pretraining")
    arguments = parser.parse_args()
    run_python(HERE / "make_corpus.py")
    run_python(HERE / "make_tokenizer.py")
    with tempfile.TemporaryDirectory(prefix="pretrain-base-") as directory:
        run_python("-m", "codex_ml.cli.main", "train", "--config-name=examples/pretrain_base", *arguments.overrides,
                   f"run.output_dir={directory}")  # fmt: skip
        (run,) = (path for path in Path(directory).iterdir() if (path / "run.json").is_file())
        best = run / "checkpoints" / (run / "checkpoints" / "best").read_text("utf-8").strip()
        copy_model(best, arguments.output)
    return 0


def run_python(*arguments: str | Path) -> None:
    """Run this interpreter with arguments and stop when it fails."""
    subprocess.run([sys.executable, *map(str, arguments)], check=True)


def copy_model(checkpoint: Path, output: Path) -> None:
    """Copy the model files of a checkpoint into place of an earlier model.

    Raises
    ------
    ValueError
        If the weights are larger than what the repository may hold.
    """
    weights = (checkpoint / "model.safetensors").stat().st_size
    if weights > SIZE_LIMIT_BYTES:
        raise ValueError(f"the weights have {weights} bytes, more than the {SIZE_LIMIT_BYTES} the repository may hold")
    output.mkdir(exist_ok=True)
    for name in MODEL_FILES:
        shutil.copyfile(checkpoint / name, output / name)
    shape = json.loads((output / "config.json").read_text("utf-8"))
    print(f"{output.name}: {shape['model_type']}, {weights:,} bytes of weights, from {checkpoint.name}")


if __name__ == "__main__":
    sys.exit(main())
