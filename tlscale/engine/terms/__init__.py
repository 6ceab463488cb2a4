"""Terms that may stand beside the task's loss, one file for each family."""
