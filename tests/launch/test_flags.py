"""Values that flags do not take, and the evaluation's exit code where nothing can be evaluated."""

import jax
import pytest
from absl import flags
from tiny_sweep import command
from trained_run import damage, original

from launch import flag_errors, program
from thermo_ebm.errors import UserError


def test_values_out_of_range_are_named(programs, tmp_path):
    run = f"--workdir={original()}"
    sweep = command(tmp_path, "import sys\nsys.exit('no')\n")
    cases = [
        ("eval", [run, "--poll_seconds=-1"], "--poll_seconds=-1"),
        ("eval", [run, "--poll_seconds=nan"], "--poll_seconds=nan: must be from 0 to 86400"),
        ("sweep", [*sweep, "--poll_seconds=-1"], "--poll_seconds=-1"),
        ("sweep", sweep, "SystemExit: no"),
        ("sample", [run, "--seed=-1"], "--seed=-1"),
        ("sample", [run, f"--seed={2**31}"], "--seed="),
        ("tempered", [run, "--seed=-1"], "--seed=-1"),
    ]
    for name, arguments, message in cases:
        code, out, err = programs.run(name, *arguments)
        assert (code, out) == (2, ""), (name, arguments, err)
        assert message in err
        assert err.startswith("error: ")
        assert err.count("\n") == 1


def test_evaluating_only_damaged_checkpoints_fails(programs, workdir):
    for path in workdir.glob("rep_*/checkpoints/*"):
        if path.name != "0":
            damage(path)
    arguments = ("eval", f"--workdir={workdir}", "--num_sizes=3")
    code, out, err = programs.run(*arguments, before="use_quick_network")
    assert code == 1
    assert "0 checkpoints evaluated" in out
    assert "cannot be read" in err


def test_values_of_lists_that_cannot_be_chosen_are_named(monkeypatch):
    values = flags.FlagValues()
    flags.DEFINE_list("parts", None, "Parts.", flag_values=values)
    monkeypatch.setattr(flag_errors.flags, "FLAGS", values)
    values(["program"])
    assert flag_errors.choices("parts", ["step", "chains"]) == []
    values(["program", "--parts=chains,step"])
    assert flag_errors.choices("parts", ["step", "chains"]) == ["chains", "step"]
    values(["program", "--parts=step,other"])
    with pytest.raises(UserError, match=r"^--parts=other: must be one or more of step, chains$"):
        flag_errors.choices("parts", ["step", "chains"])


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating\n9 bytes."),
        MemoryError("Unable to allocate 9 bytes"),
    ],
)
def test_running_out_of_memory_prints_one_line(capsys, error):
    def main(argv):
        raise error

    assert program.exit_code(main, ["program"]) == program.BAD_INPUT
    err = capsys.readouterr().err
    assert err.startswith("error: out of memory (")
    assert "choose a smaller batch_size" in err
    assert err.count("\n") == 1


def test_unexpected_errors_keep_their_traceback():
    def main(argv):
        raise jax.errors.JaxRuntimeError("INTERNAL: odd")

    with pytest.raises(jax.errors.JaxRuntimeError, match="odd"):
        program.exit_code(main, ["program"])
