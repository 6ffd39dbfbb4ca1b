"""Documents to split, tokenized, memory-mapped files, and from there to batches."""
