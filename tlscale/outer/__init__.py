"""Programs over whole runs."""
