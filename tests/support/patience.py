"""How long a test waits for what may hang: long, for the machine may have other work to do."""

PATIENCE = 1500  # seconds; pytest's own --timeout is longer
