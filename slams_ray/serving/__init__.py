"""A trained network as an HTTP service."""
