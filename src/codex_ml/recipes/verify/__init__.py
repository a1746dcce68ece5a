"""The job of `codex-ml runs verify`."""
