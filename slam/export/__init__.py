"""A run directory in the files that other programs read."""
