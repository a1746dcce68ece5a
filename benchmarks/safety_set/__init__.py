"""A labelled set of texts for measuring safety policies; written apart from the rules. See ../README.md."""
