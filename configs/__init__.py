"""Configurations: one file per data set, each based on `base.py`."""
