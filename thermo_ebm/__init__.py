"""ThermoEBM: latent-space energy-based prior models trained by thermodynamic integration."""
