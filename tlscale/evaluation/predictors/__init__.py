"""Predictors: who answers a task's items, each a plugin of the group `tlscale.predictors`."""
