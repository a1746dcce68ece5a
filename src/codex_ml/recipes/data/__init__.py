"""Jobs of the commands `codex-ml data …`."""
