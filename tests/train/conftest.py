"""Fixtures of the tests of training."""

import pytest
import tiny_training as tiny


@pytest.fixture(scope="module")
def compile_once():
    """Runs of one module that have the same programs share their compilation."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny.compile_once(monkeypatch)
        yield
