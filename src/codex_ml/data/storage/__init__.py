"""Token arrays and the token cache."""
