"""Image metrics: feature networks, FID, KID and their extrapolation. Knows nothing of models."""
