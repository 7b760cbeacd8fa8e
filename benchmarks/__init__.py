"""Stored results, and what writes README's tables from them."""
