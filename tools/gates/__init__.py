"""The scans of the local gate: which there are, how each runs without a network, and what counts as passed."""
