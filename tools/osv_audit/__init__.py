"""The offline audit of installed packages: OSV records, PEP 440, and pip-audit's own protocol on loopback."""
