"""Training: optimisers, the pmapped step, checkpoints, the loop and its readings."""
