"""Measured figures in, pictures and self-contained pages out."""
