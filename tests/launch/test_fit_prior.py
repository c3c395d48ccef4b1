"""The program that fits a new prior: the file that all programs open, and its comparison."""

import json
import re

import numpy as np
import pytest

from thermo_ebm.evaluation.run import load_run


@pytest.mark.slow
def test_the_file_has_the_decoder_and_the_new_prior(programs, workdir, tmp_path):
    output = tmp_path / "two_stage.safetensors"
    few = ("--num_updates=150", "--num_images=4", "--error=10", "--max_gradients=8")
    command = ("fit_prior", f"--run={workdir}", f"--output={output}", "--prior=factorized", *few)
    code, out, err = programs.run(*command, "--step=20", "--repetition=1", "--learning_rate=0.02")
    assert code == 0, err
    number = r"-?[\d.e-]+"
    for line in (
        r"prior of 150 x 4 latents of repetition 1, step 20, best after \d+ updates: "
        rf"log p\(z\) of those held out is {number} \+- {number} "
        rf"nats above N\(0, 1\^2\); log Z {number} \+- 0, reliable: yes",
        r"log p\(x\) of the same 4 validation images, nats:",
        rf"  before: {number} \+- {number}, reliable: (yes|no; .*)",
        rf"  after: {number} \+- {number}, reliable: (yes|no; .*)",
        rf"  gained: {number} nats \(95 % interval {number} to {number}\): .*",
        rf"written: {output} and {tmp_path}/two_stage/rep_01",
    ):
        assert re.search(f"^{line}$", out, re.MULTILINE), (line, out)
    old, new = load_run(workdir).params(1, 20), load_run(output)
    assert new.config.model.prior.name == "factorized"
    for leaf, other in zip(
        *(map(np.asarray, tree.values()) for tree in _layers(old, new.params(1))), strict=True
    ):
        np.testing.assert_array_equal(leaf, other)
    summary = json.loads((tmp_path / "two_stage/rep_01/likelihood/summary.json").read_text())
    parts = summary["fit_prior"]
    gained = parts["after"]["log_marginal_likelihood"] - parts["before"]["log_marginal_likelihood"]
    assert parts["gained"]["mean"] == pytest.approx(gained)
    # What follows opens the file, and its table as it is.
    again = programs.run("likelihood", f"--workdir={output}", "--repetition=1", *few[1:])
    assert again.code == 0, again.err
    assert programs.run(*command).err.startswith(f"error: output={output}: must be a new file")


def _layers(old, new):
    """The generators' arrays by name."""
    return (
        {
            f"{layer}.{name}": array
            for layer, arrays in params["generator"].items()
            for name, array in arrays.items()
        }
        for params in (old, new)
    )


def test_wrong_commands_are_one_line_and_code_2(programs, workdir, tmp_path):
    run, output = f"--run={workdir}", f"--output={tmp_path}/new.safetensors"
    for argv, message in [
        ([run], "--output is missing"),
        ([output], "--run is missing"),
        ([run, f"--output={tmp_path}/nowhere/new.safetensors"], "there is no folder"),
        ([run, f"--output={tmp_path}/new"], "must be a new file such as two_stage.safetensors"),
        ([run, output, "--prior=gaussian"], "--prior=gaussian: must be one of mlp, factorized"),
        ([run, output, "--num_images=41"], "num_images=41: there are 40 of them"),
        ([run, output, "--step=7"], "step=7: no such checkpoint"),
    ]:
        code, out, err = programs.run("fit_prior", *argv)
        assert (code, out) == (2, ""), (argv, out, err)
        assert re.search(message, err), (argv, err)
        assert err.count("\n") == 1, (argv, err)
