"""Reads a finished run directory and says what came of the transfer. Free of torch."""
