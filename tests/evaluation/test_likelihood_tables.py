"""The tables of a held-out likelihood: resumed bit for bit and never mixed."""

import jax
import numpy as np
import pytest
from trained_run import original

from thermo_ebm import likelihood
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import likelihood_figures, likelihood_summary, likelihoods, trained
from thermo_ebm.evaluation import likelihood_files as tables

SETTINGS = likelihoods.Settings(chains=2, num_temperatures=2, steps_per_temperature=1, batch_size=4)
COLUMNS = tables.IMAGE_COLUMNS
QUICK = jax.jit(likelihood.estimate, static_argnames=("model", "settings"))


@pytest.fixture(autouse=True)
def quick_estimate(monkeypatch):
    monkeypatch.setattr(likelihoods, "_estimate", QUICK)


def session(folder, settings=SETTINGS, step=30, images=None):
    run = trained.open_run(original())
    images = trained.validation_images(run) if images is None else images
    params = trained.load_params(run, 0, step)
    with tables.hold(folder):
        return likelihoods.open_session(run, 0, step, params, images, settings, folder), images


class Interrupted(Exception):
    pass


def after(calls):
    """A progress that interrupts at a call."""
    left = iter(range(calls))

    def progress(done):
        if next(left, None) is None:
            raise Interrupted

    return progress


def test_an_interrupted_table_is_taken_up_bit_for_bit(tmp_path):
    opened, images = session(tmp_path / "whole")
    whole = likelihoods.validation_table(opened, images[:10], lambda done: None)
    assert [row["image"] for row in whole] == list(range(10))
    assert all(np.isfinite(list(row.values())).all() for row in whole)

    opened, _ = session(tmp_path / "parts")
    with pytest.raises(Interrupted):
        likelihoods.validation_table(opened, images[:10], after(2))
    table = tmp_path / "parts" / tables.TABLE
    assert len(tables.read_rows(table, COLUMNS)) == 8  # two groups of four
    done, (again, _) = [], session(tmp_path / "parts")
    np.testing.assert_array_equal(again.temperatures, opened.temperatures)
    assert likelihoods.validation_table(again, images[:10], done.append) == whole
    assert done == [8, 2]
    assert table.read_bytes() == (tmp_path / "whole" / tables.TABLE).read_bytes()

    # More images keep what is done.
    more = likelihoods.validation_table(again, images[:12], done.append)
    assert done[2:] == [10, 2]
    assert more[:10] == whole


def test_rows_of_other_settings_checkpoints_and_images_are_not_mixed(tmp_path):
    opened, images = session(tmp_path)
    likelihoods.validation_table(opened, images[:4], lambda done: None)
    before = (tmp_path / tables.TABLE).read_bytes()
    for changes, message in (
        ({"settings": SETTINGS._replace(chains=4)}, "chains=4: .*likelihood.csv was made with 2"),
        ({"settings": SETTINGS._replace(seed=1)}, "seed=1: "),
        ({"step": 20}, "step=20: .* was made with 30; name another folder as output"),
    ):
        with pytest.raises(UserError, match=message):
            session(tmp_path, **changes)
    with pytest.raises(UserError, match="image 0 differs from that of this run"):
        likelihoods.validation_table(opened, images[1:5], lambda done: None)
    assert (tmp_path / tables.TABLE).read_bytes() == before


def test_the_same_step_of_a_run_trained_anew_is_another_checkpoint(tmp_path):
    opened, images = session(tmp_path)
    other = jax.tree.map(lambda leaf: leaf * 1.01, opened.params)
    with pytest.raises(UserError, match="parameters="):
        likelihoods.open_session(opened.run, 0, 30, other, images, SETTINGS, tmp_path)


def test_parameters_that_are_not_finite(tmp_path):
    run = trained.open_run(original())
    params = jax.tree.map(lambda leaf: leaf * np.nan, trained.load_params(run, 0, 30))
    with pytest.raises(UserError, match="step=30: repetition 0 has diverged"):
        likelihoods.open_session(run, 0, 30, params, np.zeros(0), SETTINGS, tmp_path)
    assert not (tmp_path / tables.FOLDER).exists()


def test_one_process_at_a_time(tmp_path):
    with (
        tables.hold(tmp_path),
        pytest.raises(UserError, match="another process is estimating"),
        tables.hold(tmp_path),
    ):
        pass


def test_damaged_files(tmp_path):
    session(tmp_path)
    table = tmp_path / tables.TABLE
    table.write_text(",".join(COLUMNS) + "\n0,1,2\n")
    with pytest.raises(UserError, match=r"likelihood.csv:2: 3 fields"):
        tables.read_rows(table, COLUMNS)
    (tmp_path / tables.FOLDER / "settings.json").write_text("[]")
    with pytest.raises(UserError, match=r"settings.json: not the settings of a likelihood"):
        session(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "least"),
    [("chains", 1, 2), ("num_temperatures", 1, 2), ("steps_per_temperature", 0, 1)],
)
def test_settings_that_cannot_estimate(field, value, least):
    with pytest.raises(UserError, match=f"^{field}={value}: must be at least {least}$"):
        likelihoods.check(SETTINGS._replace(**{field: value}))


# What is made of tables, by hand.


def row(image, value, **others):
    rest = dict.fromkeys(COLUMNS, 1.0) | {"image": float(image), "log_likelihood": value}
    return rest | others


def test_means_by_hand():
    found = likelihood_summary.mean([row(0, -3.0, stderr=3.0), row(1, -5.0, stderr=4.0)])
    assert found.log_likelihood == -4
    assert found.stderr == 2.5  # sqrt(9 + 16) / 2
    assert found.high - found.log_likelihood == pytest.approx(1.96)  # sd sqrt 2, of 2 images
    rows = [
        {"lower": -3.0, "log_likelihood": -2.0, "upper": -1.0},
        {"lower": -5.0, "log_likelihood": -4.5, "upper": -4.0},
    ]
    gap = likelihood_summary.gap(rows)
    assert (gap.lower, gap.log_likelihood, gap.upper, gap.gap) == (-4.0, -3.25, -2.5, 1.5)
    assert gap.gap_stderr == pytest.approx(0.5)


def test_scores_are_higher_for_what_is_unlike_the_model():
    near = [row(i, -1.0 - i / 8, tilt=1.0, reconstruction=i / 8, norm=1.0) for i in range(4)]
    far = [row(i, -9.0 - i / 8, tilt=0.5, reconstruction=9 + i / 8, norm=1.0) for i in range(4)]
    found = likelihood_summary.detections(near, far)
    assert {name: one.auroc for name, one in found.items()} == {
        "log_likelihood": 1.0,
        "tilt": 1.0,
        "pang": 1.0,
    }
    np.testing.assert_allclose(likelihood_summary.SCORES["pang"](near[:2]), [0.0, 0.125])


def test_the_figure_of_extremes_shows_the_best_and_the_worst():
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    values = np.array([-3.0, -1.0, -6.0, -2.0, -5.0, -4.0])
    figure = likelihood_figures.extremes(images, values, np.full(6, 0.5), "title", columns=2)
    shown = [axis.images[0].get_array()[0, 0] for axis in figure.axes if axis.images]
    assert shown == [1, 3, 0, 2, 4, 5]  # -1, -2, -3 and then -6, -5, -4
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert titles[0] == "-1.0 ± 0.5"
    assert titles[3] == "-6.0 ± 0.5"
