"""The model: an energy-based prior over latents, a generator, and their densities."""
