"""Part of codex-ml; see the README beside this file."""
