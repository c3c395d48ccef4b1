"""Measurements of a learning gradient: statistics of its entries, and its noise."""
