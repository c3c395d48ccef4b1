"""Fixtures shared by the tests."""

import gc
import os
import shutil
from pathlib import Path

import quick

# Before JAX is imported; the processes that tests start inherit it.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick.XLA_FLAGS}"
os.environ.update(quick.ENVIRONMENT)

import jax
import pytest


def pytest_collection_modifyitems(items):
    """Tests that train come first: they share compiled programs as long as one process has them.

    Idle processes take tests from the end of another's list.
    """
    items.sort(key=lambda item: "train" not in item.path.parts)


@pytest.fixture(autouse=True, scope="module")
def freeze():
    """Libraries ask for collections of garbage: they look at what the present module makes alone.

    What is imported, traced and compiled before stays anyway, and is gigabytes.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def x64():
    """Float64 for one test: the default stays float32 for all others."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def workdir(tmp_path):
    """A trained run of this test's own."""
    import trained_run  # seconds of imports, for the tests of trained runs alone

    return Path(shutil.copytree(trained_run.original(), tmp_path / "run"))


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """The programs of `launch/`, each command in a process of its own."""
    from programs import Programs

    started = Programs(tmp_path_factory.mktemp("programs"))
    yield started
    started.close()
