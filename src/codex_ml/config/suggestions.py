"""What a user probably meant by an unknown key: an alias table for what people type, then the nearest spelling."""

from __future__ import annotations

import difflib

from codex_ml.config.describe import describe_schema, section_names, valid_keys
from codex_ml.config.schema.base import Section

# difflib finds nothing near one-letter keys such as `r`, and nothing that other tools merely call differently.
ALIASES: dict[str, str] = {
    "rank": "adapter.r",
    "lora_r": "adapter.r",
    "lora_rank": "adapter.r",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "lora_target_modules": "adapter.target_modules",
    "targets": "adapter.target_modules",
    "peft": "adapter",
    "lora": "adapter",
    "lr": "training.learning_rate",
    "peak_lr": "training.learning_rate",
    "batch_size": "training.micro_batch_size",
    "micro_batch": "training.micro_batch_size",
    "per_device_train_batch_size": "training.micro_batch_size",
    "train_batch_size": "training.micro_batch_size",
    "per_device_eval_batch_size": "eval.batch_size",
    "eval_batch_size": "eval.batch_size",
    "grad_accum": "training.gradient_accumulation_steps",
    "grad_accum_steps": "training.gradient_accumulation_steps",
    "gradient_accumulation": "training.gradient_accumulation_steps",
    "accumulation_steps": "training.gradient_accumulation_steps",
    "num_epochs": "training.epochs",
    "num_train_epochs": "training.epochs",
    "epoch": "training.epochs",
    "steps": "training.max_steps",
    "num_steps": "training.max_steps",
    "max_iters": "training.max_steps",
    "warmup": "training.warmup_steps",
    "num_warmup_steps": "training.warmup_steps",
    "scheduler": "training.schedule",
    "lr_scheduler": "training.schedule",
    "lr_scheduler_type": "training.schedule",
    "decay": "training.weight_decay",
    "beta1": "training.adam_beta1",
    "beta2": "training.adam_beta2",
    "epsilon": "training.adam_epsilon",
    "clip": "training.max_grad_norm",
    "grad_clip": "training.max_grad_norm",
    "gradient_clipping": "training.max_grad_norm",
    "log_every": "training.logging_steps",
    "eval_every": "training.eval_steps",
    "save_every": "training.save_steps",
    "save_total_limit": "training.keep_last",
    "patience": "training.early_stopping_patience",
    "seq_len": "data.max_length_tokens",
    "sequence_length": "data.max_length_tokens",
    "max_length": "data.max_length_tokens",
    "max_seq_len": "data.max_length_tokens",
    "max_seq_length": "data.max_length_tokens",
    "block_size": "data.max_length_tokens",
    "model_name_or_path": "model.path",
    "base_model": "model.path",
    "model_path": "model.path",
    "model_name": "model.name",
    "model_id": "model.name",
    "repo_id": "model.name",
    "hub_model_id": "model.name",
    "commit": "model.revision",
    "precision": "model.dtype",
    "torch_dtype": "model.dtype",
    "train_file": "data.train",
    "validation_file": "data.valid",
    "validation": "data.valid",
    "val": "data.valid",
    "test_file": "data.test",
    "dataset": "data.path",
    "data_path": "data.path",
    "file": "data.path",
    "ratios": "data.split.ratios",
    "output": "run.output_dir",
    "output_directory": "run.output_dir",
    "out_dir": "run.output_dir",
    "experiment_name": "tracking.experiment",
    "trackers": "tracking.sinks",
    "report_to": "tracking.sinks",
    "max_tokens": "eval.max_new_tokens",
    "no_network": "offline",
    "evaluation": "eval",
    "train": "training",
    "trainer": "training",
    "dataset_config": "data",
}
_CUTOFF = 0.7


def suggest(key: str, root: type[Section]) -> str | None:
    """Return the dotted key that an unknown dotted key probably meant, or ``None``.

    Parameters
    ----------
    key : str
        The unknown key, such as ``training.lr``.
    root : type
        The configuration in which it was looked up.
    """
    section, _, name = key.rpartition(".")
    name = name.lower()
    known = [field.key for field in describe_schema(root)] + section_names(root)
    if key in known:
        # It was written with its dots as one name: the key is right, the nesting is not.
        return key
    siblings = valid_keys(section, root)
    # A near spelling in the same section is likelier than a word of another tool, as in data.trainn.
    if near := difflib.get_close_matches(name, siblings, n=1, cutoff=0.8):
        return f"{section}.{near[0]}" if section else near[0]
    if (target := ALIASES.get(name)) in known:
        return target
    namesakes = [candidate for candidate in known if candidate.rpartition(".")[2] == name]
    if len(namesakes) == 1:
        return namesakes[0]
    if near := difflib.get_close_matches(name, siblings, n=1, cutoff=_CUTOFF):
        return f"{section}.{near[0]}" if section else near[0]
    leaf_names = {candidate.rpartition(".")[2]: candidate for candidate in known}
    if near := difflib.get_close_matches(name, leaf_names, n=1, cutoff=_CUTOFF):
        return leaf_names[near[0]]
    return None


def unknown_key_fix(key: str, root: type[Section]) -> str:
    """Return the advice for an unknown key: the likely meaning, and every valid key beside it."""
    section = key.rpartition(".")[0]
    names = valid_keys(section, root)
    while not names and section:
        section = section.rpartition(".")[0]
        names = valid_keys(section, root)
    place = f"valid keys of {section}" if section else "valid keys at the top"
    listing = f"{place}: {', '.join(names)}"
    meant = suggest(key, root)
    if meant is None:
        return listing
    if meant == key:
        return f"nest it: write {key.replace('.', ': {')}: …{'}' * key.count('.')} in a file; {listing}"
    return f"did you mean {meant}? {listing}"
