"""Tokenization of text, prompts and conversations."""
