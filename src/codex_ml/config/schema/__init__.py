"""The sections of the configuration, one file each; imports pydantic and the standard library only."""
