"""Measurements that take minutes to hours; each is a program of its own."""
