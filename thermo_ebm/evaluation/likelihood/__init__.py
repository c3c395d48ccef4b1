"""Tables of the marginal likelihood log p(x) of a trained run, one row per image."""
