include codex.mk
