"""codex-ml: offline-first fine-tuning of causal language models with LoRA."""
