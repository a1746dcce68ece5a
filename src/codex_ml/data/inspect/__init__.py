"""Statistics, near duplicates and offsets of data files."""
