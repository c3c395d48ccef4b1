"""Benchmarks: what the documentation's figures are measured with."""
