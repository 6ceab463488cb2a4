"""The run directory: the only thing that launch, train, evaluate, report and publish share."""
