"""Run folders: cells from configs, evaluations joined, mistakes told with their file and line."""

import json

import pytest
from analysis_builders import NETWORK, cell_frame, config, vanilla_settings, write_run

from thermo_ebm.analysis.readings import final, load
from thermo_ebm.analysis.runs import load_runs
from thermo_ebm.analysis.settings import cells_of
from thermo_ebm.errors import UserError


def test_runs_are_found_and_evaluations_joined(tmp_path):
    write_run(tmp_path / "a/deep/run", kid=0.05)
    write_run(tmp_path / "vanilla", config("vanilla"), kid=0.03)
    readings = load(tmp_path, None)
    assert len(readings.frame) == 8
    assert readings.notes == []
    vanilla, thermodynamic = cells_of(readings.frame).values()
    assert (vanilla.loss, vanilla.power, vanilla.quadrature) == ("vanilla", None, None)
    assert (thermodynamic.power, thermodynamic.num_temperatures) == (6.0, 2.0)
    last = final(readings.frame)
    assert last[f"{NETWORK}_kid_inf"].tolist() == pytest.approx([0.05, 0.0505, 0.03, 0.0303])
    assert set(last["epoch"]) == {2.0}
    assert len(readings.temperatures) == 4 * 3


def test_the_last_evaluation_counts_but_a_loss_that_was_lost_stays_lost(tmp_path):
    run = write_run(tmp_path / "run", repetitions=1)
    header, first, _ = (run / "rep_00/readings.csv").read_text().splitlines()
    lines = [header, first, "2,20,nan,0.0,nan,nan,,1e9,3.0"]
    (run / "rep_00/readings.csv").write_text("\n".join(lines) + "\n")
    evaluation = f"epoch,step,{NETWORK}_kid_inf\n1,5,0.8\n1,10,0.7\n"
    (run / "rep_00/eval.csv").write_text(evaluation)
    row = final(load(tmp_path, None).frame).iloc[0]
    assert row["train_loss"] != row["train_loss"]
    assert row["train_grad_var"] != row["train_grad_var"]
    assert row[f"{NETWORK}_kid_inf"] == 0.7


def test_cells_differ_by_every_field_that_varies(tmp_path):
    write_run(tmp_path / "a", config(model__latent_dim=32, seed=7))
    write_run(tmp_path / "b", config(model__latent_dim=64))
    write_run(tmp_path / "c", config(model__latent_dim=64, loss__quadrature="right"))
    cells = list(cells_of(load(tmp_path, None).frame).values())
    described = {(s.quadrature, s.other) for s in cells}
    assert described == {
        ("trapezium", "model.latent_dim=32"),
        ("trapezium", "model.latent_dim=64"),
        ("right", "model.latent_dim=64"),
    }


def test_fields_without_meaning_do_not_split_cells(tmp_path):
    write_run(tmp_path / "a", config("vanilla", loss__power=6.0))
    write_run(tmp_path / "b", config("vanilla", loss__power=1.0, seed=10, data__data_dir="/x"))
    readings = load(tmp_path, None)
    assert len(cells_of(readings.frame)) == 1
    assert len(final(readings.frame)) == 4


def test_one_draw_is_not_counted_twice(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", repetitions=3)  # seeds 0 and 1 again, and 2
    readings = load(tmp_path, None)
    assert len(final(readings.frame)) == 3
    assert len(readings.notes) == 2
    assert all("left out" in note for note in readings.notes)


def test_the_linear_schedule_is_p_1_of_its_own_name(tmp_path):
    write_run(tmp_path / "a", config(loss__schedule="linear"))
    (settings,) = cells_of(load(tmp_path, None).frame).values()
    assert (settings.power, settings.schedule) == (1.0, "linear")


def test_unfinished_runs_are_remarked(tmp_path):
    write_run(tmp_path / "a", config(num_epochs=5))
    write_run(tmp_path / "b", repetitions=0)
    notes = load_runs(tmp_path).notes
    assert any("2 of 5 epochs" in note for note in notes)
    assert any("no readings yet" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("config.json", '{\n "seed": 0,\n oops\n}', "config.json:3:"),
        ("config.json", "[1]", "config.json:1:"),
        ("rep_00/readings.csv", "epoch,train_loss\n1,2\n", "readings.csv:1:"),
        ("rep_00/readings.csv", "epoch,train_loss,train_grad_var\n1,2,x\n", "readings.csv:2:"),
        ("rep_00/eval.csv", "epoch,n_kid_inf\n1,2\n2\n", "eval.csv:3:"),
        ("rep_00/temperatures.csv", "epoch,index\n1,0\n", "temperatures.csv:1:"),
    ],
)
def test_malformed_files_are_told_with_file_and_line(tmp_path, name, content, where):
    run = write_run(tmp_path / "run")
    (run / name).write_text(content)
    with pytest.raises(UserError) as caught:
        load_runs(tmp_path)
    assert where in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("loss__name", "other", "neither vanilla nor thermodynamic"),
        ("loss__power", "six", "loss.power is 'six'"),
        ("batch_size", None, "batch_size is None"),
    ],
)
def test_configs_with_a_wrong_field(tmp_path, field, value, words):
    write_run(tmp_path / "run", config(**{field: value}))
    with pytest.raises(UserError, match=r"config\.json") as caught:
        load_runs(tmp_path)
    assert words in str(caught.value)


def test_a_config_without_a_field(tmp_path):
    tree = config()
    del tree["loss"]["quadrature"]
    run = write_run(tmp_path / "run", tree)
    with pytest.raises(UserError, match=r"the field loss\.quadrature is missing"):
        load_runs(tmp_path)
    assert json.loads((run / "config.json").read_text())["loss"]["power"] == 6.0


def test_folders_without_runs(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_runs(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run folder"):
        load_runs(tmp_path)
    write_run(tmp_path / "run", repetitions=0)
    with pytest.raises(UserError, match="train first"):
        load_runs(tmp_path)


def test_means_over_the_last_epochs():
    frame = cell_frame(vanilla_settings(25.0), 0.5, 0.05, repetitions=2, epochs=4)
    shuffled = frame.sample(frac=1.0, random_state=0).reset_index(drop=True)
    last = final(shuffled, epochs=2).sort_values("repetition")
    for repetition, row in enumerate(last.itertuples()):
        rows = frame[frame["repetition"] == repetition].iloc[-2:]
        assert row.train_grad_var == pytest.approx(rows["train_grad_var"].mean())
        assert (row.epoch, row.batch_size, row.loss) == (4.0, 25.0, "vanilla")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0, must be positive"),
        ({"loss__power": float("nan")}, "loss.power is nan"),
        ({"loss__num_temperatures": float("inf")}, "loss.num_temperatures is inf"),
        ({"seed": "abc"}, "seed is 'abc'"),
        ({"num_epochs": None}, "num_epochs is None"),
        ({"parallel_repetitions": "two"}, "parallel_repetitions is 'two'"),
    ],
)
def test_values_that_no_run_has_are_refused(tmp_path, fields, message):
    write_run(tmp_path / "run", config(**fields))
    with pytest.raises(UserError, match=rf"config.json: {message}"):
        load(tmp_path, None)


@pytest.mark.parametrize(
    ("name", "column"), [("readings.csv", "power"), ("eval.csv", "train_loss")]
)
def test_columns_with_another_meaning_are_refused(tmp_path, name, column):
    path = write_run(tmp_path / "run") / "rep_00" / name
    lines = path.read_text().splitlines()
    lines = [f"{lines[0]},{column}", *(f"{line},1.0" for line in lines[1:])]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"{name}, line 1: column {column}"):
        load(tmp_path, None)


def test_metrics_of_an_earlier_epoch_are_remarked(tmp_path):
    run = write_run(tmp_path / "run")
    header, row = (run / "rep_01/eval.csv").read_text().splitlines()
    (run / "rep_01/eval.csv").write_text(f"{header}\n{row.replace('2,20', '1,10', 1)}\n")
    notes = load(tmp_path, None).notes
    assert notes == [f"{run / 'rep_01'}: metrics of epoch 1 beside the readings of epoch 2."]


def test_repetitions_that_train_together_share_the_time(tmp_path):
    write_run(tmp_path / "alone", config(num_repetitions=2))
    write_run(tmp_path / "together", config(num_repetitions=2, parallel_repetitions=5, seed=9))
    frame = load(tmp_path, None).frame
    seconds = frame.groupby("run")["seconds"].sum()
    assert seconds.max() == pytest.approx(2 * seconds.min())
