"""Fixtures of the analysis' tests."""

import pytest
from study_builders import study_frame


@pytest.fixture
def study():
    """The readings of a whole study in which the paper's claims hold."""
    return study_frame()
