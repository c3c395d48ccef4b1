"""A trained run read back, evaluated and drawn."""
