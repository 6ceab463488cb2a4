"""Scorers: a language model and requests -> log-likelihoods and continuations."""
