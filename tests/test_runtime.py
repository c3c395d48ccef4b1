"""What is set before JAX starts."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from patience import PATIENCE

from thermo_ebm import runtime
from thermo_ebm.errors import UserError
from thermo_ebm.metrics.networks import cache

ROOT = Path(__file__).resolve().parents[1]


def test_a_program_on_windows_prints_one_line():
    """Modules that look at the system are imported before it seems to be another."""
    code = (
        "import sys, absl.app, filelock, ml_collections, PIL.Image, signal\n"
        "sys.argv, sys.platform = ['train', '--config=digits', '--workdir=w'], 'win32'\n"
        "del signal.SIGHUP\n"
        "import launch.train"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: ThermoEBM runs on Linux and macOS, not on Windows itself; install it in WSL, the "
        "Windows Subsystem for Linux\n"
    )


def test_vmem_limit_is_raised_on_chips_with_the_memory(monkeypatch):
    limit = "--xla_tpu_scoped_vmem_limit_kib"
    for chip, before, after in [
        ("v6e-8", None, f"{limit}=65536"),
        ("v5litepod-4", "--xla_a=1", f"--xla_a=1 {limit}=40960"),
        ("v6e-8", f"{limit}=98304", f"{limit}=98304"),
        ("v4-8", "--xla_a=1", "--xla_a=1"),
        (None, None, None),
    ]:
        # Set before it is deleted, so that what the function sets is undone after the test.
        for name, value in (("TPU_ACCELERATOR_TYPE", chip), ("LIBTPU_INIT_ARGS", before)):
            monkeypatch.setenv(name, value or "")
            if value is None:
                monkeypatch.delenv(name)
        runtime.raise_vmem_limit()
        assert os.environ.get("LIBTPU_INIT_ARGS") == after


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_settings_of_the_environment_do_not_reach_results():
    code = """
import jax, jax.numpy as jnp
from thermo_ebm import runtime
runtime.pin_settings()
print(jax.random.key_data(jax.random.key(3)).tolist(), jax.random.normal(jax.random.key(3), (2,)))
print(jnp.zeros(2).dtype, (jnp.ones((2, 2)) + jnp.ones(2)).shape, jnp.log(-jnp.ones(1)))
print(runtime.effective_settings())
"""
    plain = python(code)
    other = python(
        code,
        JAX_ENABLE_X64="1",
        JAX_DEFAULT_PRNG_IMPL="rbg",
        JAX_THREEFRY_PARTITIONABLE="0",
        JAX_RANDOM_SEED_OFFSET="5",
        JAX_DEFAULT_MATMUL_PRECISION="bfloat16",
        JAX_NUMPY_RANK_PROMOTION="raise",
        JAX_NUMPY_DTYPE_PROMOTION="strict",
        JAX_DEBUG_NANS="1",
        JAX_DISABLE_JIT="1",
    )
    assert plain.stdout.startswith("[0, 3]"), plain.stderr
    assert "'jax_enable_x64': 'False'" in plain.stdout
    assert other.stdout == plain.stdout, other.stderr


def test_pinned_settings_are_the_defaults_of_jax():
    done = python("""
import os
for name in [name for name in os.environ if name.startswith("JAX_")]:
    del os.environ[name]
from thermo_ebm import runtime
import jax
defaults = runtime.effective_settings()
runtime.pin_settings()
assert runtime.effective_settings() == defaults, (runtime.effective_settings(), defaults)
""")
    assert done.returncode == 0, done.stderr


def test_mistyped_settings_are_one_line_and_exit_code_2():
    for name, value in [
        ("JAX_ENABLE_X64", "maybe"),
        ("JAX_NUM_CPU_DEVICES", "x"),
        ("JAX_DEFAULT_PRNG_IMPL", "twister"),
        ("JAX_DEFAULT_MATMUL_PRECISION", "good"),
    ]:
        done = python("from launch import program", **{name: value})
        assert done.returncode == 2, (name, done.stderr)
        assert done.stderr.startswith(f"error: environment: {name}={value}: ")
        assert done.stderr.count("\n") == 1


def test_programs_start_without_a_home_folder(monkeypatch):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(runtime.Path, "expanduser", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert runtime.cache_folder() is None
    assert cache.default_dir().parent == Path(tempfile.gettempdir())
    with pytest.raises(UserError, match="the folder that ~ stands for cannot be determined"):
        runtime.expand_home("~/runs")


def test_backends_of_notebooks_do_not_reach_programs():
    code = "from launch import program; import matplotlib.pyplot as p; print(p.get_backend())"
    done = python(code, MPLBACKEND="module://nowhere")
    assert done.stdout.lower() == "agg\n", done.stderr


def test_warnings_of_programs_are_printed_once():
    code = "from launch import program; import logging; logging.basicConfig(); "
    code += "print(logging.root.handlers)"
    done = python(code)
    assert done.stdout.startswith("[<ABSLHandler"), done.stderr
    assert done.stdout.count("Handler") == 1
