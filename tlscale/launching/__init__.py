"""Starting workers: pure rendering of commands, thin submission."""
