"""Scores: suites of examples x a predictor -> measurements, with every example's outcome kept."""
