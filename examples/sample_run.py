"""Draws samples and reconstructions from a trained run, as arrays and as one picture.

First train one: python -m launch.train --config=configs/digits.py --workdir=runs/digits
Run it with: python -m examples.sample_run runs/digits samples.png
"""

import sys

import jax
import numpy as np

import thermo_ebm as te
from thermo_ebm import data
from thermo_ebm.run import pictures

run = te.load_run(sys.argv[1])
key_samples, key_reconstructions = jax.random.split(jax.random.key(0))
samples = run.sample(16, key_samples)  # [16, height, width, channels] in [-1, 1]
again = run.reconstruct(samples, key_reconstructions)
error = float(np.mean((samples - again) ** 2))
print(f"{run.config.data.name}: {samples.shape[0]} samples, reconstructed with MSE {error:.4f}")

both = data.to_uint8(np.concatenate([samples, again]))
pictures.save_png(sys.argv[2], pictures.grid(pictures.magnify(both), columns=8, gap=2))
print(f"wrote {sys.argv[2]}: two rows of samples above two of their reconstructions")
