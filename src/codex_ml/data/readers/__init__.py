"""Readers of the data formats, from a path to lines or rows."""
