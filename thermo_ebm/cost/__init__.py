"""What a step costs before anything runs: arithmetic and memory."""
