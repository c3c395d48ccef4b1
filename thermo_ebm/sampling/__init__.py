"""Short-run Langevin chains."""
