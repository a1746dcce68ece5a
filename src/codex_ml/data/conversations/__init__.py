"""Conversations: turns of every known spelling, and the chat template that renders them."""
