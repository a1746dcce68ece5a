"""Records in the supported formats, checked and converted to messages or prompts."""
