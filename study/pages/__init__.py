"""The generators of the pages in docs/study."""
