"""The program that compiles a step for TPUs: bad input, the table, and one whole run."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny
from patience import PATIENCE

from benchmarks import aot, tpu_program
from benchmarks.chips import read_topology
from thermo_ebm import scopes
from thermo_ebm.config.build import image_shape
from thermo_ebm.errors import UserError
from thermo_ebm.train import feed, programs
from thermo_ebm.train.state import init_state
from thermo_ebm.train.task import make_task

ROOT = Path(__file__).resolve().parents[2]
V5E = read_topology("v5e:2x2")


def run(*argv):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.aot", *argv],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_bad_topology_is_one_line():
    result = run("--topology=v9:2x2")
    assert result.returncode == 2
    expected = "error: topology=v9:2x2: no chip 'v9'; there are v4, v5e, v5p, v6e\n"
    assert result.stderr == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("JAX TPU support not installed; cannot generate", "requirements-tpu.txt"),
        ("INVALID_ARGUMENT: no such\ntopology", "topology=v5e:2x2: INVALID_ARGUMENT: no such top"),
    ],
)
def test_what_the_compiler_refuses_is_one_line(monkeypatch, message, expected):
    def refuse(**_):
        raise RuntimeError(message)

    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(aot.topologies, "get_topology_desc", refuse)
    with pytest.raises(UserError, match=expected):
        aot.topology_devices(V5E)
    assert os.environ["TPU_ACCELERATOR_TYPE"] == "v5litepod-4"


def test_forms_are_checked():
    assert aot.read_forms(["stamped", "dilated"]) == ["stamped", "dilated"]
    with pytest.raises(UserError, match="forms=stampd"):
        aot.read_forms(["stampd"])


def test_the_lowered_step_is_that_of_the_trainer():
    config = tiny.config()
    task = make_task(config)
    state = jax.eval_shape(lambda: init_state(task, jnp.uint32(0)))
    images = np.zeros((config.data.num_train, *image_shape(config)), np.uint8)
    batches = feed.in_memory(images, task).take(np.arange(config.batch_size)[None])
    by_trainer = programs.map_step(task).lower(state, batches)
    assert aot.lower_step(task, jax.devices()).as_text() == by_trainer.as_text()


def test_rows_of_the_aot_table_by_hand():
    cycles = {scopes.POSTERIOR_CHAINS: 1_200_000, scopes.UPDATE: 300_000}
    arithmetic = {scopes.POSTERIOR_CHAINS: 394 * 10**9}
    rows = {row.part: row for row in aot.make_rows("dilated", V5E, cycles, arithmetic)}
    assert list(rows) == [*scopes.PARTS, tpu_program.OTHER, aot.STEP]
    chains, step = rows[scopes.POSTERIOR_CHAINS], rows[aot.STEP]
    assert (chains.ms, chains.share) == pytest.approx((0.8, 0.8))
    assert chains.tflop_s == pytest.approx(394e9 / 0.8e-3 / 1e12)
    assert (step.ms, step.gflop) == pytest.approx((1.0, 394.0))
    # Four chips of 197 TFLOP/s would need half a millisecond.
    assert step.fraction == pytest.approx(0.5)
    assert rows[scopes.PRIOR_CHAINS].fraction == 0.0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_the_digits_step_compiles_for_tpus(tmp_path):
    path = tmp_path / "aot.csv"
    result = run("--topology=v5e:2x2", "--config=configs/digits_paper.py", f"--csv={path}")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert sum(aot.ESTIMATED in line for line in lines) == 4
    assert 0.9 < float(re.search(r": ([\d.]+) of the peak", result.stdout)[1]) < 1
    number = r"(\d[\d.e+-]*)"
    pattern = (
        rf"topology=v5e:2x2 hbm_mib={number} estimated_step_ms={number} "
        rf"estimated_fraction_of_peak={number}"
    )
    figures = re.fullmatch(pattern, lines[-1])
    assert figures, lines[-1]
    assert 0 < float(figures[3]) < 1
    assert path.read_text().count("on_tpu") == len(scopes.PARTS) + 2
