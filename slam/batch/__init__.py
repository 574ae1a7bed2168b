"""Many recordings, each run by programs in processes of their own, on this computer or on a Ray cluster."""
