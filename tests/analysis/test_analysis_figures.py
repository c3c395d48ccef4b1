"""Every figure on synthetic readings: what stands on its axes, and None where there is no data."""

import io

import numpy as np
import pandas as pd
import pytest
from analysis_builders import (
    NETWORK,
    cell_frame,
    study_frame,
    thermodynamic_settings,
    vanilla_settings,
)
from PIL import Image

from thermo_ebm.analysis import figures_metric, figures_training, figures_variance
from thermo_ebm.analysis.settings import cell_key, cells_of

KID = f"{NETWORK}_kid_inf"


def drawn(figure):
    """Renders a figure; returns its pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=40)
    buffer.seek(0)
    return np.asarray(Image.open(buffer).convert("RGB"))


def words(figure):
    """Returns every text on a figure."""
    figure.canvas.draw()
    return " | ".join(t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")))


def table_of_temperatures(key, power=1.0):
    t = (np.arange(5) / 4) ** power
    e = -30.0 + 20.0 * np.sqrt(t)
    return pd.DataFrame(
        {
            "cell": key,
            "repetition": 0,
            "epoch": 3.0,
            "index": np.arange(5.0),
            "temperature": t,
            "expected_log_likelihood": e,
            "kl_forward": [4.0, 3.0, 2.0, 1.0, np.nan],
            "kl_backward": [1.0, 1.0, 1.0, 1.0, np.nan],
        }
    )


DRAWN = {
    "batch": lambda frame: figures_variance.variance_by_batch(frame),
    "power": lambda frame: figures_variance.variance_by_power(frame),
    "metric": lambda frame: figures_metric.metric_by_variance(frame, KID),
    "regimes": lambda frame: figures_metric.metric_by_variance_regimes(frame, KID),
    "changes": lambda frame: figures_metric.changes_over_powers(frame, KID),
    "by power": lambda frame: figures_metric.metric_by_power(frame, KID),
    "loss": lambda frame: figures_training.training_curves(frame),
    "variance": lambda frame: figures_training.reading_curves(frame, "train_grad_var"),
    "kid": lambda frame: figures_training.reading_curves(frame, KID),
    "schedules": lambda frame: figures_training.temperature_schedules(frame),
    "cost": lambda frame: figures_training.cost(frame),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_is_drawn_and_says_what_gradients_were_used(study, name):
    figure = DRAWN[name](study)
    assert drawn(figure).std() > 5.0
    text = words(figure).replace("\n", " ")
    assert "digits, own runs" in text
    if name == "batch":
        assert "Vanilla: maximum-likelihood gradients" in text
    else:
        for used in ("prior gradient contrastive", "generator gradient detached", "trapezium"):
            assert used in text


def test_boxes_stand_in_the_order_of_the_setting(study):
    (axis,) = figures_variance.variance_by_power(study).axes
    labels = [tick.get_text() for tick in axis.get_xticklabels()]
    assert labels == ["0.1", "0.3", "1", "2", "3", "6", "10"]
    (axis,) = figures_variance.variance_by_batch(study).axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["25", "50", "75", "150"]
    dots = sum(len(c.get_offsets()) for c in axis.collections)
    assert dots == 4 * 5


def test_boxes_of_panels_with_other_powers_stand_at_their_own():
    powers = {"trapezium": (0.1, 1.0, 6.0), "right": (1.0, 3.0)}
    frames = [
        cell_frame(thermodynamic_settings(p, quadrature=quadrature), 0.3 + 0.01 * p, 0.05)
        for quadrature, several in powers.items()
        for p in several
    ]
    axes = figures_variance.variance_by_power(pd.concat(frames, ignore_index=True)).axes
    places = []
    for axis in axes:
        labels = [tick.get_text() for tick in axis.get_xticklabels()]
        assert labels == ["0.1", "1", "3", "6"]
        places.append(sorted(round(c.get_offsets()[:, 0].mean()) for c in axis.collections))
    assert sorted(places) == [[0, 1, 3], [1, 2]]


def test_regimes_have_their_points_bars_and_curves(study):
    (axis,) = figures_metric.metric_by_variance(study, KID).axes
    assert [t.get_text() for t in axis.get_legend().get_texts()] == [
        *("vanilla", "p > 1", "0 < p ≤ 1"),
    ]
    means, (x_caps, y_caps), _ = axis.containers[0][0], axis.containers[0][1][:2], None
    assert len(means.get_xdata()) == 4
    assert len(x_caps.get_xdata()) == len(y_caps.get_xdata()) == 4
    curves = [line for line in axis.lines if len(line.get_xdata()) == 100]
    assert [line.get_linestyle() for line in curves] == ["-", "-", "--"]  # three points: dashed


def test_a_panel_for_each_variant_of_the_loss():
    exact, none = (study_frame(prior_gradient=g) for g in ("contrastive", "none"))
    frame = pd.concat([exact, none[none["loss"] != "vanilla"]], ignore_index=True)
    figure = figures_metric.metric_by_variance(frame, KID)
    titles = [axis.get_title().replace("\n", " ") for axis in figure.axes]
    assert len(titles) == 2
    assert any("prior gradient none" in t for t in titles)
    assert any("prior gradient contrastive" in t for t in titles)
    assert len(figures_variance.variance_by_power(frame).axes) == 2


def test_changes_are_named_in_the_legend(study):
    (axis,) = figures_metric.changes_over_powers(study, KID).axes
    labels = [t.get_text() for t in axis.get_legend().get_texts()]
    assert labels[3:] == ["p = 0.1, η = 2", "p = 0.1, K = 40", "p = 0.1, N_t = 30"]


def test_the_title_names_the_settings_that_were_changed(study):
    assert "changes to N_t, K and η over" in words(figures_metric.changes_over_powers(study, KID))
    only = study[study["kl_weight"].isna() | (study["kl_weight"] == 1.0)]
    only = only[only["num_temperatures"].isna() | (only["num_temperatures"] == 10.0)]
    assert "changes to K over" in words(figures_metric.changes_over_powers(only, KID))


def test_losses_are_centred(study):
    figure = figures_training.training_curves(study)
    for line in figure.axes[0].lines:
        assert np.mean(line.get_ydata()) == pytest.approx(0.0, abs=1e-9)


def test_schedules_are_those_of_equation_26(study):
    (axis,) = figures_training.temperature_schedules(study).axes
    by_label = {line.get_label(): line.get_ydata() for line in axis.lines}
    np.testing.assert_allclose(by_label["p = 6"], (np.arange(11) / 10) ** 6)
    assert len(by_label["p = 0.1, N_t = 30"]) == 31


def test_sums_of_the_integral_by_hand():
    table = pd.DataFrame(
        {
            "temperature": [0.0, 0.25, 1.0],
            "expected_log_likelihood": [-30.0, -14.0, -10.0],
            "kl_forward": [4.0, 3.0, np.nan],
            "kl_backward": [2.0, 2.0, np.nan],
        }
    )
    sums = figures_training.trapezium_sums(table)
    assert sums.left == 0.25 * -30 + 0.75 * -14
    assert sums.right == 0.25 * -14 + 0.75 * -10
    assert sums.trapezium == 0.25 * -22 + 0.75 * -12
    assert sums.corrected == sums.trapezium + (2.0 + 1.0) / 2


def test_the_integral_has_a_panel_a_cell_with_its_sums(study):
    keys = [k for k, s in cells_of(study).items() if s.power in (1.0, 6.0)]
    parts = [table_of_temperatures(key, p) for key, p in zip(keys, (1.0, 6.0), strict=True)]
    figure = figures_training.integral(study, pd.concat(parts))
    assert drawn(figure).std() > 5.0
    assert [axis.get_title() for axis in figure.axes] == ["p = 1", "p = 6"]
    expected = figures_training.trapezium_sums(parts[0])
    assert f"T {expected.trapezium:.4g}" in figure.axes[0].texts[0].get_text()
    assert figures_training.integral(study, pd.DataFrame()) is None


def test_cost_adds_up(study):
    time, work = figures_training.cost(study).axes
    assert (time.get_xlabel(), work.get_xlabel()) == (
        *("training time (min)", "counted work of training (GFLOP)"),
    )
    assert time.patches[0].get_width() == pytest.approx(3 * 3.6 / 60)
    assert work.patches[0].get_width() == pytest.approx(30)


def test_samples_show_the_newest_grid(tmp_path):
    folder = tmp_path / "rep_00" / "samples"
    folder.mkdir(parents=True)
    for name in ("epoch_0002", "epoch_0010", "strip", "real_0050"):
        Image.new("RGB", (16, 16), "red").save(folder / f"{name}.png")
    path = figures_training.newest_samples(tmp_path)
    assert path is not None
    assert path.stem == "epoch_0010"
    settings = thermodynamic_settings(6.0)
    figure = figures_training.sample_grids(
        {cell_key(settings): path}, {cell_key(settings): settings}
    )
    red = (drawn(figure) == (255, 0, 0)).all(axis=-1)
    assert red.mean() > 0.2
    assert figures_training.sample_grids({}, {}) is None
    assert figures_training.newest_samples(tmp_path / "rep_00") is None


def test_a_damaged_picture_is_left_out(tmp_path):
    paths = [tmp_path / name for name in ("text.png", "cut.png", "good.png")]
    Image.new("RGB", (64, 64), "red").save(paths[2])
    paths[0].write_text("no picture")
    paths[1].write_bytes(paths[2].read_bytes()[:60])
    cells = {cell_key(s): s for s in (thermodynamic_settings(p) for p in (1.0, 3.0, 6.0))}
    figure = figures_training.sample_grids(dict(zip(cells, paths, strict=True)), cells)
    assert [axis.get_title() for axis in figure.axes] == ["p = 6"]
    assert figures_training.sample_grids({next(iter(cells)): paths[0]}, cells) is None


def test_a_metric_of_one_epoch_has_no_curve(study):
    evaluated = study.assign(**{KID: study[KID].where(study["epoch"] == 3.0)})
    assert DRAWN["kid"](evaluated) is None
    assert DRAWN["kid"](study) is not None


def test_figures_without_data_are_none():
    bare = cell_frame(vanilla_settings(25.0), 0.5, 0.05).drop(
        columns=[KID, f"{NETWORK}_fid_inf", "seconds", "flops_per_step"]
    )
    for name in ("power", "by power", "metric", "regimes", "changes", "kid", "schedules", "cost"):
        assert DRAWN[name](bare) is None, name
    assert DRAWN["batch"](bare) is not None


def test_one_repetition_and_missing_readings_still_draw():
    frame = pd.concat(
        [
            cell_frame(vanilla_settings(25.0), 0.5, 0.05, repetitions=1, epochs=1),
            cell_frame(thermodynamic_settings(6.0), 0.3, 0.04, repetitions=1, epochs=1),
        ],
        ignore_index=True,
    )
    frame.loc[0, KID] = np.nan
    for name in ("batch", "power", "metric", "regimes", "loss", "variance"):
        assert drawn(DRAWN[name](frame)).std() > 1.0
