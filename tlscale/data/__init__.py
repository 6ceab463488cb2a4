"""From rows to examples to batches: formats, masks, padding and order."""
