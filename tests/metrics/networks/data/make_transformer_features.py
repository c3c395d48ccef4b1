"""Writes `transformer_features.npz`: outputs of small vision transformers with random weights.

Run with torch and transformers from the root of the repository:
PYTHONPATH=.:tests python tests/metrics/networks/data/make_transformer_features.py
"""

from pathlib import Path

import numpy as np
from metrics.networks import random_weights, transformer_models
from metrics.networks.test_vision_transformer import CASES, DINOV2, inputs, state_dict

stored = {}
for case, (_, _, num_patches) in CASES.items():
    kind = "dinov2" if case == "interpolated" else case
    stored[case] = transformer_models.outputs(kind, state_dict(case), inputs(), num_patches)
positions = random_weights.transformer_state_dict(DINOV2, "dinov2_transformers", 37)[
    "embeddings.position_embeddings"
]
for name, offset, antialias in (("release", 0.1, False), ("registers", 0.0, True)):
    patches = transformer_models.release_positions(positions, 16, offset, antialias)
    stored[f"positions/{name}"] = patches[:, :3]
np.savez_compressed(Path(__file__).with_name("transformer_features.npz"), **stored)
