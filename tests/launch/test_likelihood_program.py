"""The likelihood program: its tables, summary and pictures, and one line for each wrong choice."""

import json
import re

import numpy as np
import pytest
from trained_run import damage

FAST = ("--chains=8", "--error=10", "--max_gradients=8", "--batch_size=4")


@pytest.mark.slow
def test_tables_summary_and_pictures_are_written_and_continued(programs, workdir, tmp_path):
    np.savez(
        tmp_path / "noise.npz",
        images=np.random.default_rng(0).integers(0, 256, (6, 9, 9), np.uint8),
    )
    command = ("likelihood", f"--workdir={workdir}", "--num_images=6", "--num_simulated=2", *FAST)
    code, out, err = programs.run(*command, f"--against={tmp_path / 'noise.npz'}")
    assert code == 0, err
    folder = workdir / "rep_00"
    for line in (
        r"log p\(x\) of 6 validation images, repetition 0, step 30:",
        r"  mean -?[\d.]+ nats \(95 % interval -?[\d.]+ to -?[\d.]+\), [\d.]+ bits per dimension",
        r"nats per image +images +estimate +lower +upper +gap$",
        r"simulated +2 +-?[\d.]+ \+- .* \+- [\d.e-]+$",
        r"reliable: (yes|no; .*)$",
        r"log p\(x\) of 6 images of .*noise.npz:",
        r"  detected by log_marginal_likelihood: AUROC [\d.]+ \([\d.]+ to [\d.]+\), AUPRC ",
        r"  detected by tilt: ",
        r"  detected by pang: ",
        rf"written: {folder}/likelihood.csv and {folder}/likelihood",
    ):
        assert re.search(f"^{line}", out, re.MULTILINE), (line, out)
    made = sorted(path.name for path in (folder / "likelihood").iterdir())
    assert [name for name in made if not name.startswith(".")] == [
        "against_noise.csv",
        "against_noise.png",
        "against_noise_images.png",
        "images.png",
        "settings.json",
        "simulated.csv",
        "summary.json",
    ]
    lines = (folder / "likelihood.csv").read_text().splitlines()
    assert lines[0].startswith(
        "image,checksum,log_marginal_likelihood,bits_per_dim,stderr,reliable,island_spread,"
    )
    assert len(lines) == 7
    summary = json.loads((folder / "likelihood" / "summary.json").read_text())
    assert summary["validation"]["num_images"] == 6
    assert summary["simulated"]["gap"] == pytest.approx(
        summary["simulated"]["upper"] - summary["simulated"]["log_marginal_likelihood"]
    )
    assert summary["verdict"]["reliable"] in (True, False)
    assert summary["log_z_alpha"]["r_hat"] > 0.9
    assert summary["against_noise"]["log_marginal_likelihood"]["share"] == 0.5

    # A second command for more images and without the others keeps all that was done.
    code, _, err = programs.run(*command[:2], "--num_images=8", "--num_simulated=0", *FAST)
    assert code == 0, err
    longer = (folder / "likelihood.csv").read_text().splitlines()
    assert len(longer) == 9
    assert longer[:7] == lines
    kept = json.loads((folder / "likelihood" / "summary.json").read_text())
    assert kept["against_noise"] == summary["against_noise"]
    assert kept["simulated"] == summary["simulated"]

    # Another checkpoint is refused there, and has room elsewhere.
    other = (*command[:2], "--step=20", "--num_images=2", "--num_simulated=0", *FAST)
    code, _, err = programs.run(*other)
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: step=20: {folder}/likelihood.csv was made")
    assert (folder / "likelihood.csv").read_text().splitlines() == longer
    code, _, err = programs.run(*other, f"--output={tmp_path / 'elsewhere'}")
    assert code == 0, err
    assert (tmp_path / "elsewhere" / "likelihood.csv").exists()


def test_wrong_commands_are_one_line_and_code_2(programs, workdir, tmp_path):
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "one.npz", images=np.full((1, 8, 8), 9, np.uint8))
    np.savez(tmp_path / "three.npz", images=np.full((3, 8, 8), 9, np.uint8))
    wrong = {
        "--chains=4": "--chains=4: ",
        "--chains=10": "--chains=10: must be a multiple of 4",
        "--error=0": "--error=0",
        "--max_gradients=1": "--max_gradients=1: ",
        f"--against_run={tmp_path}/empty": f"{tmp_path}/empty",
        "--batch_size=0": "--batch_size=0: ",
        "--num_images=1": "--num_images=1: ",
        "--num_images=41": "num_images=41: more than the 40 validation images",
        "--num_simulated=1": "--num_simulated=1: must be 0, or at least 2",
        "--against=nowhere": "nowhere: no such folder or file",
        f"--against={tmp_path}/empty": "no images",
        f"--against={tmp_path}/one.npz": "1 images of ",
        f"--output={workdir}/config.json": f"output={workdir}/config.json: cannot be written",
    }
    started = {
        flag: programs.start("likelihood", f"--workdir={workdir}", flag, *_fast_without(flag))
        for flag in wrong
    }
    for flag, message in wrong.items():
        code, out, err = started[flag].wait()
        assert code == 2, (flag, err)
        assert err.startswith(f"error: {message}"), (flag, err)
        assert (err.count("\n"), out) == (1, ""), flag
    assert not (workdir / "rep_00" / "likelihood").exists()
    code, _, err = programs.run(
        "likelihood", f"--workdir={workdir}", f"--against={tmp_path}/three.npz", "--num_images=4"
    )
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: num_images=4: more than the 3 images of ")


def _fast_without(flag):
    """The quick settings, without the one that is wrong."""
    name = flag.partition("=")[0]
    return [other for other in FAST if other.partition("=")[0] != name]


@pytest.mark.slow
def test_two_runs_are_compared_on_the_same_images(programs, workdir, tmp_path):
    """A run against itself: the same images and random numbers, hence no difference at all."""
    command = ("likelihood", f"--workdir={workdir}", "--num_images=4", "--num_simulated=0", *FAST)
    code, out, err = programs.run(*command, f"--against_run={workdir}")
    assert code == 0, err
    assert re.search(r"less that under .*: 0\.00 nats \(95 % interval .*\): undecided", out), out
    summary = json.loads((workdir / "rep_00" / "likelihood" / "summary.json").read_text())
    assert summary["against_run_run"]["num_images"] == 4
    assert not summary["against_run_run"]["decided"]


def test_a_damaged_checkpoint_asks_for_another_step(programs, workdir):
    damage(workdir / "rep_00" / "checkpoints" / "30")
    code, out, err = programs.run("likelihood", f"--workdir={workdir}", *FAST)
    assert (code, out) == (2, "")
    assert "choose another step" in err
