"""Thermodynamic integration: temperature schedules and the integral over them."""
