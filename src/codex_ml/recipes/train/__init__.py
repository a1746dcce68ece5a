"""The job of `codex-ml train`."""
