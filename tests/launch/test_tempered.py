"""The program of diagnostics: its table, its file, and one line for each wrong choice."""

import csv

import pytest
import trained_run
from trained_run import original

from study.report import diagnostics_parts

LINEAR = {
    "loss__reference": "linear",
    "sampler__start": "reference",
    "sampler__adapt_step_sizes": True,
    "sampler__prior__kernel": "hmc",
    "sampler__prior__step_size": 0.5,
    "sampler__posterior__kernel": "hmc",
    "sampler__posterior__step_size": 0.25,
}
FAST = ("--num_steps=20", "--num_images=2", "--chains_per_image=3", "--num_temperatures=2")


def test_diagnostics_of_any_latent_are_printed_written_and_reported(programs, workdir):
    command = ("tempered", f"--workdir={workdir}", "--exchange_every=1", "--kernel=mala", *FAST)
    code, printed, _ = programs.run(*command, "--diagnostics")
    table = workdir / "rep_00/diagnostics.csv"
    assert code == 0
    assert "posterior, t = 1 (* this run's K, mala)" in printed
    assert printed.endswith(f"written: {table}\n")
    content = table.read_bytes()
    assert len(content.splitlines()) == 1 + 2 * 3  # 8 and 20 steps, three temperatures
    heading, note, details = diagnostics_parts([workdir, workdir / "rep_00"])
    assert heading.startswith('<h2 id="chains">')
    assert note.startswith('<p class="note">')
    assert details.count("<tr>") == 1 + 6

    # Without the flag the program does the same.
    code, again, err = programs.run(*command)
    assert (code, again, err) == (0, printed, "")
    assert table.read_bytes() == content


@pytest.mark.slow
def test_chains_from_the_linear_reference(programs, tmp_path):
    workdir = trained_run.save(tmp_path / "linear", **LINEAR)
    code, printed, _ = programs.run("tempered", f"--workdir={workdir}", *FAST)
    assert code == 0
    assert "posterior, t = 1 (* this run's K, hmc)" in printed
    rows = list(csv.DictReader((workdir / "rep_00/diagnostics.csv").open()))
    # The prior's chains stand beside the ladder and exchange with nobody.
    assert [row["swap_rate"] != "" for row in rows] == [False, True, False] * 2
    # Before the first step q is p0, and the step sizes are those of the configuration.
    assert {row["prior_step_size"] for row in rows} == {"0.5"}
    assert {row["posterior_step_size"] for row in rows} == {"0.25"}


def test_wrong_choices_are_one_line(programs):
    wrong = {
        "--power=0": "--power=0.0: must be positive",
        "--prior_step_size=-1": "--prior_step_size=-1.0: must be positive",
        "--image=3": "--image: there is no such flag",
        "--num_images=41": "num_images=41: more than the 40 validation images",
        "--num_temperatures=1": "exchange_every=1: needs num_temperatures of at least 2",
    }
    command = ["tempered", f"--workdir={original()}", "--diagnostics", "--exchange_every=1"]
    processes = {flag: programs.start(*command, flag) for flag in wrong}
    for flag, message in wrong.items():
        code, out, err = processes[flag].wait()
        assert (code, out) == (2, ""), (flag, err)
        assert message in err, (flag, err)
        assert err.splitlines()[-1].startswith("error: "), (flag, err)
