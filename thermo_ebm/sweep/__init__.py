"""Sweeps: the cells of an experiment, here and on SLURM."""
