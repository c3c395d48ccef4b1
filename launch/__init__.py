"""The programs: absl flags live here and nowhere else."""
