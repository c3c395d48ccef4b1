"""Benchmarks: the programs that measure the figures in the documentation."""
