"""A configuration checked field by field, and what is built from it."""
