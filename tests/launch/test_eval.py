"""The evaluation program: beside training, killed, repeated, and with what a user gets wrong."""

import csv
import json
import re
import shutil
import signal
import time

import numpy as np
import pytest
import trained_run
from programs import wait_until
from trained_run import PREFIX, damage, original

QUICK = "use_quick_network"
ARGUMENTS = ("--num_sizes=3", "--poll_seconds=0.1")


def rows(workdir, repetition=0):
    path = workdir / f"rep_{repetition:02d}/eval.csv"
    if not path.exists():
        return []
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def progress(workdir):
    return sum(len(rows(workdir, number)) for number in range(2))


def written(workdir):
    return {path.name: path.read_bytes() for path in sorted((workdir / "rep_00").glob("eval*"))}


@pytest.mark.parametrize("network", [QUICK, pytest.param("", marks=pytest.mark.slow)])
def test_a_second_evaluation_has_nothing_to_do(programs, workdir, network):
    """With a quick network in the place of the real one, and with the real one."""
    shutil.rmtree(workdir / "rep_01")
    command = ("eval", f"--workdir={workdir}", "--newest_only", *ARGUMENTS)
    code, out, err = programs.run(*command, before=network)
    assert (code, err) == (0, "")
    assert out.startswith("rep 00 epoch 3: fid_inf ")
    assert f"note: fid_inf: 40 images are few for {12 if network else 1280} features" in out
    assert f"1 checkpoint evaluated with {PREFIX}: {workdir}/rep_*/eval.csv" in out
    (row,) = rows(workdir)
    assert (row["epoch"], row["step"]) == ("3", "30")
    assert float(row[f"{PREFIX}_fid"]) > 0
    before = written(workdir)
    code, out, err = programs.run(*command, before=network)
    assert (code, err) == (0, "")
    assert out == f"{workdir}: nothing to do, every checkpoint has been evaluated with {PREFIX}\n"
    assert written(workdir) == before
    # Of fewer images: a row is added, and a line says so.
    code, out, err = programs.run(*command, "--num_images=30", before=network)
    assert (code, err) == (0, "")
    assert out.startswith(
        f"note: eval.csv keeps its rows of {PREFIX} with 40 images and 3 sizes; rows with 30 images"
    )
    assert [row[f"{PREFIX}_num_images"] for row in rows(workdir)] == ["40.0", "30.0"]
    assert {row["network"] for row in rows(workdir)} == {PREFIX}


def test_two_checkpoints_are_compared_in_pairs(programs, workdir):
    """Each of two repetitions with an early checkpoint; nothing is written."""
    command = ("eval", f"--workdir={workdir}", *ARGUMENTS)
    code, out, err = programs.run(*command, f"--against_run={workdir}:0:10", before=QUICK)
    assert (code, err) == (0, "")
    assert out.count(f"B: {workdir}, repetition 0, step 10\n") == 2
    assert f"A: {workdir}, repetition 1, step 30\n" in out
    assert "A - B" in out
    assert "95 % interval" in out
    assert not rows(workdir)
    for name, message in {
        f"{workdir}:0:11": "step=11: no such checkpoint",
        f"{workdir}:x": "against_run=",
        "/nowhere": "/nowhere",
    }.items():
        code, out, err = programs.run(*command, f"--against_run={name}", before=QUICK)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


@pytest.mark.slow
def test_repeated_kills_do_not_change_the_result(programs, workdir, tmp_path):
    """SIGKILL after random times, until a run gets through; nothing is double, nothing half."""
    whole = tmp_path / "whole"
    shutil.copytree(workdir, whole)
    assert programs.run("eval", f"--workdir={whole}", *ARGUMENTS, before=QUICK).code == 0
    command = ("eval", f"--workdir={workdir}", *ARGUMENTS)
    rng, codes = np.random.default_rng(0), []
    while len(codes) < 3:
        process, had = programs.start(*command, before="use_slow_network"), progress(workdir)
        while progress(workdir) == had and not process.is_over():
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.1))
        codes.append(process.kill().code)
    assert codes == [-signal.SIGKILL] * 3
    assert 3 <= progress(workdir) < 6
    assert programs.run(*command, before=QUICK).code == 0
    assert written(workdir) == written(whole)
    assert [row["step"] for row in rows(workdir, 1)] == ["10", "20", "30"]


@pytest.mark.slow
def test_watching_from_before_training_evaluates_each_epoch(programs, tmp_path):
    """Every epoch is evaluated, as one evaluation of the finished run would."""
    made = tmp_path / "run"
    watcher = programs.start("eval", f"--workdir={made}", "--watch", *ARGUMENTS, before=QUICK)
    wait_until(lambda: "waiting for training to begin" in watcher.err())
    training = trained_run.flags(num_repetitions=1, loss__name="vanilla", num_epochs=4)
    code, _, err = programs.run("train", f"--workdir={made}", *training)
    assert code == 0, err
    code, out, err = watcher.wait()
    assert code == 0, err
    assert [row["epoch"] for row in rows(made)] == ["1", "2", "3", "4"]
    assert out.count("rep 00 epoch") == 4
    beside = written(made)
    shutil.rmtree(made / "rep_00/tensorboard")
    for path in made.glob("rep_00/eval*"):
        path.unlink()
    assert programs.run("eval", f"--workdir={made}", *ARGUMENTS, before=QUICK).code == 0
    assert written(made) == beside


def test_keep_best_copies_a_checkpoint_that_can_be_sampled(programs, workdir):
    command = ("eval", f"--workdir={workdir}", "--keep_best=kid", *ARGUMENTS)
    code, out, _ = programs.run(*command, before=QUICK)
    assert code == 0
    folder = workdir / "rep_00/best"
    # Chosen by one half of the images, reported on the other.
    (line,) = [line for line in out.splitlines() if line.startswith("rep 00 best: kid ")]
    step = re.search(r" at step (\d+)", line).group(1)
    assert line.endswith(f": {folder}")
    shutil.rmtree(workdir / "rep_00/checkpoints" / step)
    code, out, _ = programs.run(*command, before=QUICK)
    assert code == 0
    assert line in out.splitlines()
    code, out, _ = programs.run("sample", f"--workdir={workdir}", "--step=best", "--num=1")
    assert (code, out.splitlines()[0]) == (0, f"drawn from repetition 0, step {step}:")


@pytest.mark.slow
def test_best_log_p_of_held_out_images(programs, workdir):
    """Estimated for every checkpoint once, and the best that is reliable is kept."""
    command = ("eval", f"--workdir={workdir}", "--keep_best=log_marginal_likelihood")
    code, out, err = programs.run(*command)
    assert code == 0, err
    assert (
        len(re.findall(r"^rep 0\d epoch \d: log p\(x\) -?[\d.]+ \+- [\d.e-]+ nats, rel", out, re.M))
        == 6
    )
    values = {
        row["step"]: float(row["held_out_log_marginal_likelihood"])
        for row in rows(workdir)
        if float(row["held_out_reliable"]) >= 0.5
    }
    assert values
    step = max(values, key=values.get)
    assert f"rep 00 best: log_marginal_likelihood {values[step]:.4g} +- " in out
    assert (workdir / "rep_00/best" / step).is_dir()
    code, out, _ = programs.run(*command)
    assert "nothing to do, every checkpoint has been evaluated with held_out" in out


def test_watching_ends_when_no_process_trains(programs, workdir):
    code, out, _ = programs.run("eval", f"--workdir={workdir}", "--watch", *ARGUMENTS, before=QUICK)
    assert code == 0
    assert out.count("epoch") == 6


def test_an_interrupted_evaluation_exits_with_3(programs, tmp_path):
    watcher = programs.start("eval", f"--workdir={tmp_path}/run", "--watch", before=QUICK)
    wait_until(lambda: "waiting" in watcher.err())
    code, _, err = watcher.kill(signal.SIGINT)
    assert code == 3
    assert err.endswith("interrupted: the same command continues\n")
    assert "Traceback" not in err


def test_a_damaged_checkpoint_is_skipped_with_a_warning(programs, workdir):
    damage(workdir / "rep_00/checkpoints/20")
    code, out, err = programs.run("eval", f"--workdir={workdir}", *ARGUMENTS, before=QUICK)
    assert code == 0
    assert out.count("rep 00 epoch") == 2
    assert "rep_00/checkpoints/20 cannot be read (" in err
    assert "Traceback" not in err


def bad_inputs(folder):
    """Arguments and what the one line must say."""
    run, moved = f"--workdir={folder}/run", f"--workdir={folder}/moved"
    return {
        "no folder": (
            ["--workdir=/nowhere"],
            "/nowhere/config.json: not found; /nowhere is not a run directory",
        ),
        "no run": ([f"--workdir={folder}"], f"{folder} is not a run directory"),
        "network": ([run, "--features=vgg"], "features=vgg: must be one of efficientnet_lite0, "),
        "resize": (
            [run, "--resize=nearest"],
            "resize=nearest: must be one of bilinear, antialias",
        ),
        "weights": (
            [run, "--features=inception_v3", f"--cache_dir={folder}/empty"],
            f"6726825d.pth are not in {folder}/empty: run `python -m "
            "launch.fetch_weights` where there is a network, or give their path as --weights=PATH",
        ),
        "weights before waiting": (
            ["--workdir=/nowhere", "--watch", "--features=inception_v3", f"--cache_dir={folder}"],
            f"6726825d.pth are not in {folder}: run",
        ),
        "other weights": (
            [run, "--features=inception_v3", f"--weights={folder}/gone"],
            f"weights={folder}/gone: there is no such file",
        ),
        "images": ([run, "--num_images=99"], "num_images=99: more than the 40 validation images"),
        "sizes": ([run, "--num_sizes=2"], "--num_sizes=2: must be an integer of at least 3"),
        "best": ([run, "--keep_best=loss"], "keep_best=loss: must be one of fid, fid_inf, "),
        "few images": ([run, "--num_images=5"], "num_images: 5 images are too few"),
        "moved data": ([moved], f"no file '{folder}/gone.npz'; "),
        "moved again": ([moved, f"--data_dir={folder}/else.npz"], f"no file '{folder}/else.npz'"),
        "where to": ([moved], "(data_dir says where the data are now)"),
        "unwritable": ([f"--workdir={folder}/unwritable"], "evaluations cannot be written: "),
        "structure": ([f"--workdir={folder}/structure"], "a different structure"),
    }


def change_config(folder, **fields):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    for group, values in fields.items():
        content[group] |= values
    path.write_text(json.dumps(content))


def test_wrong_commands_are_one_line_and_code_2(programs, tmp_path):
    for name in ("run", "moved", "unwritable", "structure"):
        shutil.copytree(original(), tmp_path / name)
    change_config(tmp_path / "moved", data={"name": "npz", "data_dir": f"{tmp_path}/gone.npz"})
    change_config(tmp_path / "structure", model={"latent_dim": 5})
    (tmp_path / "unwritable/rep_00/.eval.lock").mkdir()
    cases = bad_inputs(tmp_path)
    processes = [programs.start("eval", *argv, before=QUICK) for argv, _ in cases.values()]
    for process, (name, (_, message)) in zip(processes, cases.items(), strict=True):
        code, out, err = process.wait()
        assert (code, out) == (2, ""), (name, out, err)
        assert message in err, (name, err)
        assert err.startswith("error: "), (name, err)
        assert err.count("\n") == 1, (name, err)
