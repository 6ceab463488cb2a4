"""Strategies: each a pure compiler from options and facts to stages, one file each."""
