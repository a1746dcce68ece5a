"""Files, untrusted input, child processes and the terminal; nothing of models or training."""
