"""The tables of log p(x) of each image: resumed bit for bit and never mixed."""

import jax
import numpy as np
import pytest
from trained_run import original

from thermo_ebm.errors import UserError
from thermo_ebm.evaluation.likelihood import figures, session, tables
from thermo_ebm.evaluation.run import load_run

SETTINGS = session.SessionSettings(chains=8, error=10.0, max_gradients=8, batch_size=4)


@pytest.fixture(scope="module")
def run():
    """Opened once, so that its chains are compiled once."""
    return load_run(original())


@pytest.fixture(scope="module")
def images(run):
    return run.validation_images()


def open_session(run, folder, settings=SETTINGS, step=30):
    with tables.locked(folder):
        return session.open_session(run, run.load(0, step), settings, folder)


def ignore(done):
    del done


class Interrupted(Exception):
    pass


def interrupt_after(calls):
    """A progress that interrupts at a call."""
    left = iter(range(calls))

    def progress(done):
        if next(left, None) is None:
            raise Interrupted

    return progress


@pytest.mark.slow
def test_an_interrupted_table_is_completed_bit_for_bit(run, images, tmp_path):
    reference = session.validation_rows(
        open_session(run, tmp_path / "reference"), images[:10], ignore
    )
    assert [row["image"] for row in reference] == list(range(10))
    assert all(np.isfinite(list(row.values())).all() for row in reference)

    opened = open_session(run, tmp_path / "parts")
    with pytest.raises(Interrupted):
        session.validation_rows(opened, images[:10], interrupt_after(2))
    table = tables.validation_table(tmp_path / "parts")
    assert len(table.read()) == 8  # two groups of four
    done, again = [], open_session(run, tmp_path / "parts")
    assert session.validation_rows(again, images[:10], done.append) == reference
    assert done == [8, 2]
    expected = tables.validation_table(tmp_path / "reference").path.read_bytes()
    assert table.path.read_bytes() == expected

    more = session.validation_rows(again, images[:12], done.append)
    assert done[2:] == [10, 2]
    assert more[:10] == reference


@pytest.mark.slow
def test_rows_of_other_settings_checkpoints_and_images_are_not_mixed(run, images, tmp_path):
    opened = open_session(run, tmp_path)
    session.validation_rows(opened, images[:4], ignore)
    table = tables.validation_table(tmp_path).path
    before = table.read_bytes()
    for changes, message in (
        ({"settings": SETTINGS._replace(chains=12)}, "chains=12: .*likelihood.csv was made with 8"),
        ({"settings": SETTINGS._replace(seed=1)}, "seed=1: "),
        ({"step": 20}, "step=20: .* was made with 30; name another folder as output"),
    ):
        with pytest.raises(UserError, match=message):
            open_session(run, tmp_path, **changes)
    with pytest.raises(UserError, match="image 0 differs from that of this run"):
        session.validation_rows(opened, images[1:5], ignore)
    # The same step of a run that was trained anew is another checkpoint.
    checkpoint = run.load(0, 30)
    retrained = checkpoint._replace(
        params=jax.tree.map(lambda leaf: leaf * 1.01, checkpoint.params)
    )
    with pytest.raises(UserError, match="parameters="):
        session.open_session(run, retrained, SETTINGS, tmp_path)
    assert table.read_bytes() == before


def test_parameters_that_are_not_finite_are_refused(run, tmp_path):
    checkpoint = run.load(0, 30)
    diverged = checkpoint._replace(
        params=jax.tree.map(lambda leaf: leaf * np.nan, checkpoint.params)
    )
    with pytest.raises(UserError, match="step=30: repetition 0 has diverged"):
        session.open_session(run, diverged, SETTINGS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_process_at_a_time_fills_a_folder(tmp_path):
    with (
        tables.locked(tmp_path),
        pytest.raises(UserError, match="another process is estimating"),
        tables.locked(tmp_path),
    ):
        pass


def test_damaged_files_are_named(run, images, tmp_path):
    open_session(run, tmp_path)
    table = tables.validation_table(tmp_path)
    table.path.write_text(",".join(table.columns) + "\n0,1,2\n")
    with pytest.raises(UserError, match=r"likelihood.csv:2: 3 fields"):
        table.read()
    (tmp_path / "likelihood/settings.json").write_text("[]")
    with pytest.raises(UserError, match=r"settings.json: not the settings of a likelihood"):
        open_session(run, tmp_path)


# Summaries, by hand.


def row(image, value, **columns):
    rest = dict.fromkeys(tables.IMAGE_COLUMNS, 1.0)
    return rest | {"image": float(image), "log_marginal_likelihood": value} | columns


def test_means_and_gaps():
    mean = tables.mean([row(0, -3.0, stderr=3.0), row(1, -5.0, stderr=4.0)])
    assert mean.log_marginal_likelihood == -4
    assert mean.stderr == 2.5  # sqrt(9 + 16) / 2
    # The standard deviation of 2 images is sqrt 2, that of their mean 1.
    assert mean.high - mean.log_marginal_likelihood == pytest.approx(1.96)
    errors = {"stderr": 3.0, "upper_stderr": 4.0}
    gap = tables.gap(
        [
            {"log_marginal_likelihood": -3.0, "upper": -1.0, **errors},
            {"log_marginal_likelihood": -5.0, "upper": -4.0, **errors},
        ]
    )
    assert (gap.log_marginal_likelihood, gap.upper) == (-4.0, -2.5)
    assert (gap.stderr, gap.upper_stderr) == pytest.approx((3 / np.sqrt(2), 4 / np.sqrt(2)))
    assert (gap.gap, gap.gap_stderr) == (1.5, pytest.approx(0.5))


def test_intervals_of_paired_differences_cover():
    """Simulated: images differ by far more than the models do; 95 % intervals of the mean."""
    rng, covered, decisions = np.random.default_rng(0), [], []
    for _ in range(1500):
        first = rng.normal(-30, 20, size=25)
        second = first - 0.5 + rng.normal(size=25)
        constant = rng.normal(0, 0.1)
        found = tables.difference(
            [row(i, value) for i, value in enumerate(first + constant)],
            [row(i, value) for i, value in enumerate(second)],
            0.1,
        )
        covered.append(found.low <= 0.5 <= found.high)
        decisions.append(found.decided)
        assert found.decided == (found.low > 0 or found.high < 0)
    assert 0.93 <= np.mean(covered) <= 0.97
    assert 0.4 < np.mean(decisions) < 0.8


def test_numbers_of_images_that_would_decide():
    rows = [row(i, value) for i, value in enumerate([1.0, -0.8, 0.9, -0.6])]
    base = [row(i, 0.0) for i in range(4)]
    found = tables.difference(rows, base, 0.0)
    spread = np.std([1.0, -0.8, 0.9, -0.6], ddof=1)
    assert not found.decided
    assert found.images_needed == pytest.approx((1.96 * spread / 0.125) ** 2, abs=2)
    # The error of the constant stays, however many images there are.
    assert tables.difference(rows, base, 0.1).images_needed == -1


def test_scores_are_higher_for_images_unlike_the_model():
    """Both log p(x) and the tilt count with a negative sign: here only the tilt is misled."""
    near = [row(i, -1.0 - i / 8, tilt=0.5, reconstruction=i / 8, norm=1.0) for i in range(4)]
    far = [row(i, -9.0 - i / 8, tilt=1.0, reconstruction=9 + i / 8, norm=1.0) for i in range(4)]
    areas = {name: area.auroc for name, area in tables.detections(near, far).items()}
    assert areas == {"log_marginal_likelihood": 1.0, "tilt": 0.0, "pang": 1.0}
    np.testing.assert_allclose(tables.SCORES["tilt"](near[:2]), [-0.5, -0.5])
    np.testing.assert_allclose(tables.SCORES["pang"](near[:2]), [0.5, 0.625])


def test_the_figure_of_extremes_shows_the_best_and_the_worst():
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    values = (-3.0, -1.0, -6.0, -2.0, -5.0, -4.0)
    rows = [row(i, value, stderr=0.5) for i, value in enumerate(values)]
    panels = [axis for axis in figures.extremes(images, rows, "", columns=2).axes if axis.images]
    levels = [axis.images[0].get_array()[0, 0] for axis in panels]
    assert levels == [1, 3, 0, 2, 4, 5]  # -1, -2, -3 and then -6, -5, -4
    assert [panels[i].get_title() for i in (0, 3)] == ["-1.0 ± 0.5", "-6.0 ± 0.5"]


def test_histograms_show_log_p_and_the_tilt_with_their_usual_signs():
    inliers = [row(i, -1.0 - i, tilt=2.0 + i) for i in range(4)]
    outliers = [row(i, -9.0 - i, tilt=1.0 + i) for i in range(4)]
    areas = tables.detections(inliers, outliers)
    figure = figures.histograms(inliers, outliers, areas, ("inliers", "outliers"), "")
    titles = [axis.get_xlabel() for axis in figure.axes]
    assert titles == ["log p(x), nats", "f(z), nats", "Pang's score, nats"]
    limits = [axis.get_xlim() for axis in figure.axes[:2]]
    assert limits[0][1] < 0 < limits[1][0]
