"""Model families: a frozen config and a module with ``forward`` only. No optimizer, no files."""
