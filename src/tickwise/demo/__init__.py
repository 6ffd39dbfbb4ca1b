"""A whole run in about two minutes, offline: text that every Python brings along, training, samples, a report."""
