"""How fast it is, always as a ratio against a named alternative measured in the same run."""
