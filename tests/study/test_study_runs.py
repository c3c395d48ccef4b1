"""Run folders: cells from configs, joined evaluations, errors reported with file and line."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from study_builders import KID, NETWORK, cell_frame, config, vanilla_cell, write_run

from study.readings import final, load, sections
from study.runs import load_runs
from thermo_ebm.errors import UserError
from thermo_ebm.run import warm_start


def cells_of(readings):
    """The cells of the only data set."""
    (section,) = sections(readings)
    return section.cells


def test_runs_are_found_and_evaluations_joined(tmp_path):
    write_run(tmp_path / "a/deep/run", kid=0.05)
    write_run(tmp_path / "vanilla", config("vanilla"), kid=0.03)
    readings = load(tmp_path, None)
    assert len(readings.frame) == 8
    assert readings.notes == []
    (section,) = sections(readings)
    vanilla, tempered = section.cells.to_dict("records")
    assert vanilla["loss.name"] == "vanilla"
    assert pd.isna([vanilla["loss.power"], vanilla["loss.quadrature"]]).all()
    assert (tempered["loss.power"], tempered["loss.num_temperatures"]) == (6.0, 2.0)
    last = section.last
    assert last[KID].tolist() == pytest.approx([0.03, 0.0303, 0.05, 0.0505])
    assert set(last["epoch"]) == {2.0}
    assert len(readings.temperatures) == 4 * 3


def test_the_last_evaluation_counts_but_a_loss_that_is_not_finite_stays(tmp_path):
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
    cells = cells_of(load(tmp_path, None))
    pairs = cells[["loss.quadrature", "model.latent_dim"]].itertuples(index=False, name=None)
    assert set(pairs) == {("trapezium", 32.0), ("trapezium", 64.0), ("right", 64.0)}


def test_runs_that_begin_with_parameters_of_another_run_are_other_cells(tmp_path):
    def begin(name, step, weight):
        start = warm_start.SourceCheckpoint(str(tmp_path / "source"), 1, step)
        params = {"prior": np.full(3, weight, np.float32)}
        warm_start.write(tmp_path / name, warm_start.WarmStart(start, step, params))

    for name in "abcd":
        write_run(tmp_path / name, config(seed=10 * ord(name)))
    begin("b", 30, 0.5)
    begin("c", 30, 0.5)
    begin("d", 30, 0.25)  # of another run that has the same name
    cells = cells_of(load(tmp_path, None))
    scratch, *others = sorted(cells["init_from"], key=lambda text: text != "random")
    assert scratch == "random"
    assert len(others) == 2
    assert all(re.fullmatch("source:1:30#[0-9a-f]{8}", origin) for origin in others)
    assert len(set(cells.index)) == 3
    last = final(load(tmp_path, None).frame)
    assert sorted(last.groupby("cell").size()) == [2, 2, 4]


def test_fields_without_meaning_do_not_split_cells(tmp_path):
    write_run(tmp_path / "a", config("vanilla", loss__power=6.0))
    write_run(tmp_path / "b", config("vanilla", loss__power=1.0, seed=10, data__data_dir="/x"))
    readings = load(tmp_path, None)
    assert len(cells_of(readings)) == 1
    assert len(final(readings.frame)) == 4


def test_one_draw_is_not_counted_twice(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", repetitions=3)  # seeds 0 and 1 again, and 2
    readings = load(tmp_path, None)
    assert len(final(readings.frame)) == 3
    assert len(readings.notes) == 2
    assert all("left out" in note for note in readings.notes)


def test_numbers_and_words_of_fields_without_meaning_are_empty(tmp_path):
    write_run(tmp_path / "a", config(loss__correction="ratio"))
    write_run(tmp_path / "b", config(loss__correction="pooled_gaussian"))
    cells = cells_of(load(tmp_path, None)).set_index("loss.correction")
    assert cells.loc["pooled_gaussian", "loss.kl_weight"] == 1.0
    assert pd.isna(cells.loc["ratio", "loss.kl_weight"])


def test_unfinished_runs_are_noted(tmp_path):
    write_run(tmp_path / "a", config(num_epochs=5))
    write_run(tmp_path / "b", repetitions=0)
    notes = load_runs(tmp_path).notes
    assert any("2 of 5 epochs" in note for note in notes)
    assert any("no readings yet" in note for note in notes)


def test_malformed_files_are_reported_with_file_and_line(tmp_path):
    for name, content, where in [
        ("config.json", '{\n "seed": 0,\n oops\n}', "line 3"),
        ("config.json", "[1]", "config.json: not the configuration of a run"),
        ("rep_00/readings.csv", "epoch,train_loss\n1,2\n", "readings.csv:1:"),
        ("rep_00/readings.csv", "epoch,train_loss,train_grad_var\n1,2,x\n", "readings.csv:2:"),
        ("rep_00/eval.csv", "epoch,n_kid_inf\n1,2\n2\n", "eval.csv:3:"),
        ("rep_00/temperatures.csv", "epoch,index\n1,0\n", "temperatures.csv:1:"),
    ]:
        run = write_run(tmp_path / where / "run")
        (run / name).write_text(content)
        with pytest.raises(UserError) as caught:
            load_runs(tmp_path / where)
        assert where in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("loss__name", "other", "loss.name='other': must be"),
        ("loss__power", "six", "loss.power='six': must be float"),
        ("batch_size", None, "batch_size=None: must be int"),
    ],
)
def test_configs_with_a_wrong_field(tmp_path, field, value, words):
    write_run(tmp_path / "run", config(**{field: value}))
    with pytest.raises(UserError, match=r"config\.json") as caught:
        load_runs(tmp_path)
    assert words in str(caught.value)


def test_columns_of_other_versions_are_read_past(tmp_path):
    run = write_run(tmp_path / "run", repetitions=1)
    (run / "rep_00/readings.csv").write_text(
        "epoch,train_loss,train_grad_var,val_log_marginal_likelihood,of_a_later_version\n"
        "1,3.0,0.5,,7\n2,2.0,0.4,-40.5,\n"
    )
    (row,) = final(load(tmp_path, None).frame).to_dict("records")
    assert row["val_log_marginal_likelihood"] == -40.5
    assert row["train_grad_var"] == 0.4


def test_folders_without_runs(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_runs(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run directory"):
        load_runs(tmp_path)
    write_run(tmp_path / "run", repetitions=0)
    with pytest.raises(UserError, match="train first"):
        load_runs(tmp_path)


def test_means_over_the_last_epochs():
    frame = cell_frame(vanilla_cell(25.0), 0.5, 0.05, repetitions=2, epochs=4)
    shuffled = frame.sample(frac=1.0, random_state=0).reset_index(drop=True)
    last = final(shuffled, epochs=2).sort_values("repetition")
    for repetition, row in enumerate(last.itertuples()):
        rows = frame[frame["repetition"] == repetition].iloc[-2:]
        assert row.train_grad_var == pytest.approx(rows["train_grad_var"].mean())
        assert (row.epoch, row.batch_size) == (4.0, 25.0)


def test_values_that_no_run_has_are_refused(tmp_path):
    for fields, message in [
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"loss__power": float("nan")}, "loss.power=nan: must be"),
        ({"loss__num_temperatures": float("inf")}, "loss.num_temperatures=inf: must be int"),
        ({"seed": "abc"}, "seed='abc'"),
        ({"num_epochs": None}, "num_epochs=None"),
    ]:
        (name,) = fields
        write_run(tmp_path / name / "run", config(**fields))
        with pytest.raises(UserError, match=rf"config.json: (config\.)?{message}"):
            load(tmp_path / name, None)


@pytest.mark.parametrize(
    ("name", "column"), [("readings.csv", "batch_size"), ("eval.csv", "train_loss")]
)
def test_columns_with_another_meaning_are_refused(tmp_path, name, column):
    path = write_run(tmp_path / "run") / "rep_00" / name
    lines = path.read_text().splitlines()
    lines = [f"{lines[0]},{column}", *(f"{line},1.0" for line in lines[1:])]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(
        UserError, match=rf"{name}, line 1: the column {column} has another meaning"
    ):
        load(tmp_path, None)


def test_metrics_of_an_earlier_epoch_are_noted(tmp_path):
    run = write_run(tmp_path / "run")
    header, row = (run / "rep_01/eval.csv").read_text().splitlines()
    (run / "rep_01/eval.csv").write_text(f"{header}\n{row.replace('2,20', '1,10', 1)}\n")
    notes = load(tmp_path, None).notes
    assert notes == [f"{run / 'rep_01'}: metrics of epoch 1 beside the readings of epoch 2."]


def test_of_each_network_the_last_row_of_an_epoch_counts(tmp_path):
    run = write_run(tmp_path / "run", repetitions=1)
    (run / "rep_00/eval.csv").write_text(
        "epoch,network,step,n_kid,n_kid_half_1,n_num_images,n_b_kid,n_b_num_images\n"
        "2,n,20,0.5,0.25,40,,\n2,n_b,20,,,,0.125,40\n2,n,20,0.75,,30,,\n"
    )
    row = final(load(tmp_path, None).frame).iloc[0]
    assert (row["n_kid"], row["n_num_images"], row["n_b_kid"]) == (0.75, 30, 0.125)
    assert row["n_kid_half_1"] != row["n_kid_half_1"]  # of the earlier row, in which 40 images are


def test_repetitions_that_train_together_share_the_time(tmp_path):
    run = write_run(tmp_path / "run", repetitions=1)
    path = run / "rep_00/readings.csv"
    header, *rows = path.read_text().splitlines()
    sizes = (2, 4)
    lines = [f"{header},group_size", *(f"{r},{n}" for r, n in zip(rows, sizes, strict=True))]
    path.write_text("\n".join(lines) + "\n")
    (section,) = sections(load(tmp_path, None))
    assert section.last["hours"].tolist() == pytest.approx([(4.0 / 2 + 3.2 / 4) / 3600])


def npz_run(folder, place, level, **fields):
    """A run on an .npz file whose images have the mean level given."""
    run = write_run(folder, config(data__name="npz", data__data_dir=place, **fields))
    (run / "images.json").write_text(json.dumps([level + 10.0 * part for part in range(8)]))
    return run


def test_runs_on_other_images_are_other_data_sets(tmp_path):
    npz_run(tmp_path / "a", "/data/faces.npz", 100.0)
    npz_run(tmp_path / "b", "/data/hands.npz", 140.0)  # the same seeds
    readings = load(tmp_path, None)
    assert [section.dataset for section in sections(readings)] == ["npz faces", "npz hands"]
    assert len(final(readings.frame)) == 4
    assert readings.notes == []


def test_a_folder_of_idx_files_names_its_data_set(tmp_path):
    write_run(tmp_path / "a", config(data__name="idx", data__data_dir="/data/fashion-mnist"))
    (section,) = sections(load(tmp_path, None))
    assert section.dataset == "idx fashion-mnist"


def test_files_of_one_name_with_other_images_are_numbered(tmp_path):
    npz_run(tmp_path / "a", "/one/images.npz", 100.0)
    npz_run(tmp_path / "b", "/two/images.npz", 140.0)
    names = [section.dataset for section in sections(load(tmp_path, None))]
    assert names == ["npz images 1", "npz images 2"]


def test_the_same_images_elsewhere_are_the_same_data_set(tmp_path):
    npz_run(tmp_path / "a", "/here/faces.npz", 100.0)
    npz_run(tmp_path / "b", "/there/faces.npz", 100.5, seed=10)  # another JPEG decoder
    readings = load(tmp_path, None)
    assert len(cells_of(readings)) == 1
    assert len(final(readings.frame)) == 4


def test_numbers_of_images_do_not_split_a_data_set(tmp_path):
    for place, num, level in (("a", 100, 90.0), ("b", 200, 120.0)):  # other images are recorded
        tree = config(data__num_train=num)
        run = write_run(tmp_path / place, tree)
        (run / "images.json").write_text(json.dumps([level]))
    (section,) = sections(load(tmp_path, None))
    assert section.dataset == "digits"
    assert section.cells["data.num_train"].tolist() == [100.0, 200.0]


def test_a_damaged_record_of_images_is_named(tmp_path):
    run = npz_run(tmp_path / "a", "/data/faces.npz", 100.0)
    (run / "images.json").write_text('["dark"]')
    with pytest.raises(UserError, match=r"images\.json: not a list of images' mean levels"):
        load(tmp_path, None)


def write_changes(run, *changes):
    names = ("epoch", "step", "field", "old", "new")
    entries = [dict(zip(names, change, strict=True)) for change in changes]
    (run / "changes.json").write_text(json.dumps(entries))


def test_a_run_is_not_filed_under_a_setting_it_was_only_finished_with(tmp_path):
    write_run(tmp_path / "kept")
    mixed = write_run(tmp_path / "mixed", config(loss__power=1.0))
    write_changes(mixed, (1, 10, "loss.power", 6.0, 1.0))
    readings = load(tmp_path, None)
    assert cells_of(readings)["loss.power"].tolist() == [6.0]
    assert len(readings.temperatures) == 2 * 3
    assert readings.notes == [
        f"{mixed}: left out: its configuration changed (loss.power 6.0 → 1.0 after epoch 1)."
    ]
    assert [len(run.changes) for run in readings.runs] == [0, 1]


def test_changes_of_what_is_not_computed_keep_a_run(tmp_path):
    run = write_run(tmp_path / "run")
    write_changes(
        run,
        (1, 10, "num_epochs", 1, 2),
        (1, 10, "logging.pictures_every_epochs", 1, 5),
        (0, 0, "loss.power", 3.0, 6.0),  # before the first step
    )
    readings = load(tmp_path, None)
    assert len(final(readings.frame)) == 2
    assert readings.notes == []


def test_runs_that_all_changed_leave_nothing_to_report(tmp_path):
    write_changes(write_run(tmp_path / "run"), (1, 10, "loss.power", 3.0, 6.0))
    with pytest.raises(UserError, match="changed during training"):
        load(tmp_path, None)


def test_a_damaged_record_of_changes_is_named(tmp_path):
    (write_run(tmp_path / "run") / "changes.json").write_text('[{"epoch": 1}]')
    with pytest.raises(UserError, match=r"changes\.json: not a record"):
        load(tmp_path, None)


def test_epochs_are_no_field_where_updates_are_equal(tmp_path):
    """Batches of 150 and 50 of 600 images: 4 and 12 updates per epoch."""
    for epochs, is_field in [((6, 2), False), ((2, 2), False), ((6, 3), True)]:
        for size, num in zip((150, 50), epochs, strict=True):
            tree = config(batch_size=size, num_epochs=num, data__num_train=600)
            write_run(tmp_path / str(epochs) / f"batch{size}", tree)
        cells = cells_of(load(tmp_path / str(epochs), None))
        assert ("num_epochs" in cells) == is_field
