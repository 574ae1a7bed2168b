"""One short program per job."""
