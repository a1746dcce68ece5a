"""Tokenised records as flat arrays, in memory or kept on disk for the next start."""
