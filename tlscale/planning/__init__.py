"""Everything decided before anything runs."""
