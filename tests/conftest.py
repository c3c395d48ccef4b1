"""Fixtures shared by the tests."""

import jax
import pytest


@pytest.fixture
def x64():
    """Float64 for one test: the default stays float32 for all others."""
    with jax.enable_x64(True):
        yield
