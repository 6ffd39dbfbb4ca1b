"""Scaling laws: loss against parameters, tokens and compute; planning with them; growth over the years."""
