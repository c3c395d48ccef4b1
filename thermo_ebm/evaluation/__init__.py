"""Loading, evaluating and drawing trained runs."""
