"""The commands `codex-ml runs …`."""
