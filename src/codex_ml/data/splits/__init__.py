"""Splits by keyed hash, by group and by file."""
