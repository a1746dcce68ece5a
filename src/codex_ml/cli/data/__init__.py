"""The commands `codex-ml data …`."""
