"""How long a test waits for what may hang: long, since the machine may be busy."""

PATIENCE = 1500  # seconds; pytest's own --timeout is longer
