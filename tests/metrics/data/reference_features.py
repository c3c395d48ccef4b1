"""Seeded features for figures of other programs, float64 [300, 24]."""

import numpy as np

_RNG = np.random.default_rng(32)
_MIXING = _RNG.standard_normal((24, 24)) * np.exp(-np.arange(24) / 8)
REAL = np.abs(_RNG.standard_normal((300, 24)) @ _MIXING)
GENERATED = np.abs(1.1 * _RNG.standard_normal((300, 24)) @ _MIXING + 0.1)
# Two thirds of them near copies of the real ones.
TRAINING_LIKE = (
    REAL + _RNG.standard_normal((300, 24)) * np.array([0.01, 0.05, 2.0]).repeat(100)[:, None]
)
DIRECTIONS = np.random.default_rng(33).standard_normal((200, 24))
