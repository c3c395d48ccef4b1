"""Configurations: one file a data set over one base."""
