"""Fixtures of the study's tests."""

import pytest
from study_builders import study_section


@pytest.fixture(scope="session")
def study():
    """The readings of a complete study in which the paper's claims hold. Not to be changed."""
    return study_section()
