"""Averaged parameters: chosen by name, in columns and folders of their own."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
import trained_run
from trained_run import PREFIX, SETTINGS, quick_network

import thermo_ebm as te
from thermo_ebm.evaluation import evaluate
from thermo_ebm.evaluation.evaluate import Checkpoint
from thermo_ebm.run import layout, tables
from thermo_ebm.train import checkpoint_content, checkpoints, programs
from thermo_ebm.train.state import init_state
from thermo_ebm.train.task import make_task

DECAY = 0.9


def assert_scaled(params, others, factor):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, factor * b, rtol=1e-6), params, others)


@pytest.fixture
def averaged(tmp_path):
    """A run whose averages are half of the last parameters, with one checkpoint."""
    workdir = shutil.copytree(trained_run.original(), tmp_path / "run")
    config = json.loads((workdir / layout.CONFIG).read_text())
    config["optimizer"]["ema_decay"] = DECAY
    (workdir / layout.CONFIG).write_text(json.dumps(config))
    folder = workdir / "rep_00/checkpoints"
    template = jax.eval_shape(functools.partial(init_state, make_task(trained_run.config())), 0)
    restored = checkpoint_content.restore(folder, 30, template, programs.replicated()).state
    shutil.rmtree(workdir / "rep_01")
    shutil.rmtree(folder)
    opened = checkpoints.open_checkpoints(folder)
    average = jax.tree.map(lambda leaf: leaf / 2, restored.params)
    checkpoints.save(opened, restored._replace(average=average), 0.0)
    checkpoints.close(opened)
    return workdir


def test_the_parameters_are_chosen_by_name(averaged, tmp_path):
    last, run = te.load_run(averaged), te.load_run(averaged, "averaged")
    assert_scaled(run.params(), last.params(), 0.5)
    jax.tree.map(
        np.testing.assert_array_equal, te.load_run(averaged, "last").params(), last.params()
    )
    assert run.load().title() == "repetition 0, step 30, averaged parameters"
    run.export(tmp_path / "averaged.safetensors")
    exported = te.load_run(tmp_path / "averaged.safetensors")
    assert exported.parameters == "averaged"
    assert_scaled(exported.params(), run.params(), 1.0)
    with pytest.raises(
        te.UserError, match=r"parameters=last: .* has the averaged parameters alone"
    ):
        te.load_run(tmp_path / "averaged.safetensors", "last")


def test_without_an_average_the_choice_is_one_line():
    with pytest.raises(te.UserError, match=r"parameters=averaged: .* optimizer.ema_decay above 0"):
        te.load_run(trained_run.original(), "averaged")
    with pytest.raises(te.UserError, match="parameters=mean: must be last or averaged"):
        te.load_run(trained_run.original(), "mean")


@pytest.mark.slow
def test_evaluations_of_both_stand_beside_each_other(averaged):
    evaluation = {}
    for kind in ("last", "averaged"):
        run = te.load_run(averaged, kind)
        assert evaluate.unevaluated(run, SETTINGS) == [Checkpoint(0, 30)]
        prepared = evaluate.prepare(run, SETTINGS, quick_network())
        evaluation[kind] = evaluate.evaluate(run, Checkpoint(0, 30), prepared).values["fid"]
        assert evaluate.unevaluated(run, SETTINGS) == []
    last, average = tables.read(averaged / "rep_00/eval.csv", columns=None)
    assert last[f"{PREFIX}_fid"] == pytest.approx(evaluation["last"])
    assert average[f"averaged_{PREFIX}_fid"] == pytest.approx(evaluation["averaged"])
    assert evaluation["last"] != evaluation["averaged"]
    best = evaluate.keep_best(run, 0, "kid", SETTINGS)
    assert best.network == f"averaged_{PREFIX}"
    assert_scaled(run.params(step="best"), te.load_run(averaged).params(), 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["sample", "likelihood", "eval", "tempered"])
def test_programs_write_what_they_make_of_averages_apart(averaged, programs, program):
    small = {
        "sample": ("--num=2",),
        "likelihood": ("--num_images=2", "--num_simulated=0", "--error=2", "--chains=8"),
        "eval": ("--num_sizes=3",),
        "tempered": ("--num_images=2", "--chains_per_image=2", "--num_steps=8"),
    }[program]
    command = (program, f"--workdir={averaged}", "--parameters=averaged", *small)
    before = {"before": "use_quick_network"} if program == "eval" else {}
    code, out, err = programs.run(*command, **before)
    assert code == 0, err
    folder = averaged / "rep_00/averaged"
    if program == "eval":
        assert f"averaged_{PREFIX}" in (averaged / "rep_00/eval.csv").read_text()
    else:
        made = {"sample": "drawn", "likelihood": "likelihood.csv", "tempered": "diagnostics.csv"}
        assert f"{folder / made[program]}" in out
        assert (folder / made[program]).exists()
    if program == "likelihood":
        settings = json.loads((folder / layout.LIKELIHOOD_SETTINGS).read_text())
        assert settings["parameters_kind"] == "averaged"
        assert "averaged parameters" in (folder / layout.LIKELIHOOD_SUMMARY).read_text()
