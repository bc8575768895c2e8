"""A trained network in use: found, loaded, applied to photographs, exported."""
