"""Raw bytes to clean documents: read, normalise, find duplicates, segment. No tokens here."""
