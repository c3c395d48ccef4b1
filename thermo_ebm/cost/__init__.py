"""The cost of a step, computed before anything runs: arithmetic and memory."""
