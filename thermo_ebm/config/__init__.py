"""Checks of a configuration, and the settings that are built from it."""
