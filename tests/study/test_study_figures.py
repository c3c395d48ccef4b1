"""Every figure on synthetic readings: what stands on its axes, and None where there is no data."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from study_builders import (
    NETWORK,
    cell_frame,
    study_frame,
    thermodynamic_settings,
    vanilla_settings,
)

from study.figures import boxes, catalogue, curves, integral, metric, samples
from study.figures.cost import cost
from study.readings import Readings
from study.settings import cell_key, cells_of

KID = f"{NETWORK}_kid_inf"


def drawn(figure):
    """Renders a figure; returns its pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=40)
    buffer.seek(0)
    return np.asarray(Image.open(buffer).convert("RGB"))


def words(figure):
    """Returns every text on a figure; those of ticks are there once it is drawn."""
    return " | ".join(
        t.get_text().replace("\n", " ") for t in figure.findobj(lambda a: hasattr(a, "get_text"))
    )


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
    "batch": lambda frame: boxes.variance_by_batch(frame),
    "power": lambda frame: boxes.variance_by_power(frame),
    "metric": lambda frame: metric.metric_by_variance(frame, KID),
    "regimes": lambda frame: metric.metric_by_variance_regimes(frame, KID),
    "changes": lambda frame: metric.changes_over_powers(frame, KID),
    "by power": lambda frame: metric.metric_by_power(frame, KID),
    "loss": lambda frame: curves.training_curves(frame),
    "variance": lambda frame: curves.reading_curves(frame, "train_grad_var"),
    "kid": lambda frame: curves.reading_curves(frame, KID),
    "schedules": lambda frame: integral.temperature_schedules(frame),
    "cost": lambda frame: cost(frame),
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
    (axis,) = boxes.variance_by_power(study).axes
    labels = [tick.get_text() for tick in axis.get_xticklabels()]
    assert labels == ["0.1", "0.3", "1", "2", "3", "6", "10"]
    (axis,) = boxes.variance_by_batch(study).axes
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
    axes = boxes.variance_by_power(pd.concat(frames, ignore_index=True)).axes
    places = []
    for axis in axes:
        labels = [tick.get_text() for tick in axis.get_xticklabels()]
        assert labels == ["0.1", "1", "3", "6"]
        places.append(sorted(round(c.get_offsets()[:, 0].mean()) for c in axis.collections))
    assert sorted(places) == [[0, 1, 3], [1, 2]]


def test_regimes_have_their_points_bars_and_curves(study):
    figure = metric.metric_by_variance(study, KID)
    (axis,) = figure.axes
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
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
    figure = metric.metric_by_variance(frame, KID)
    titles = [axis.get_title().replace("\n", " ") for axis in figure.axes]
    assert len(titles) == 2
    assert any("prior gradient none" in t for t in titles)
    assert any("prior gradient contrastive" in t for t in titles)
    assert len(boxes.variance_by_power(frame).axes) == 2


def test_changes_are_named_in_the_legend(study):
    figure = metric.changes_over_powers(study, KID)
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels[3:] == ["p = 0.1, η = 2", "p = 0.1, K = 40", "p = 0.1, N_t = 30"]


def test_the_title_names_the_settings_that_were_changed(study):
    assert "changes to N_t, K and η over" in words(metric.changes_over_powers(study, KID))
    only = study[study["kl_weight"].isna() | (study["kl_weight"] == 1.0)]
    only = only[only["num_temperatures"].isna() | (only["num_temperatures"] == 10.0)]
    assert "changes to K over" in words(metric.changes_over_powers(only, KID))


def test_losses_are_centred(study):
    figure = curves.training_curves(study)
    for line in figure.axes[0].lines:
        assert np.mean(line.get_ydata()) == pytest.approx(0.0, abs=1e-9)


def test_schedules_are_those_of_equation_26(study):
    (axis,) = integral.temperature_schedules(study).axes
    by_label = {line.get_label(): line.get_ydata() for line in axis.lines}
    np.testing.assert_allclose(by_label["p = 6"], (np.arange(11) / 10) ** 6)
    assert len(by_label["p = 0.1, N_t = 30"]) == 31


BY_HAND = pd.DataFrame(
    {
        "temperature": [0.0, 0.25, 1.0],
        "expected_log_likelihood": [-30.0, -14.0, -10.0],
        "kl_forward": [4.0, 3.0, np.nan],
        "kl_backward": [2.0, 2.0, np.nan],
    }
)
LEFT, RIGHT = 0.25 * -30 + 0.75 * -14, 0.25 * -14 + 0.75 * -10


def test_sums_of_the_integral_by_hand():
    assert integral.sums(BY_HAND) == (LEFT, (LEFT + RIGHT) / 2, RIGHT)


@pytest.mark.parametrize(
    ("settings", "label", "value"),
    [
        ({}, "T + KL", (LEFT + RIGHT) / 2 + (7.0 - 4.0) / 2),
        ({"kl_weight": 2.0}, "T + 2 KL", (LEFT + RIGHT) / 2 + (7.0 - 4.0)),
        ({"kl_form": "sum"}, "T + KL (sum)", (LEFT + RIGHT) / 2 + (7.0 + 4.0) / 2),
        ({"kl_form": "none", "kl_weight": None}, "T", (LEFT + RIGHT) / 2),
        ({"quadrature": "left"}, "L + KL", LEFT + 7.0),
        ({"quadrature": "right", "kl_weight": 0.5}, "R + 0.5 KL", RIGHT - 0.5 * 4.0),
    ],
)
def test_the_estimate_is_the_configurations_own(settings, label, value):
    found = integral.configured_estimate(BY_HAND, thermodynamic_settings(1.0, **settings))
    assert found == (label, pytest.approx(value))


def test_estimates_of_recorded_weights_and_of_unknown_quadratures():
    settings = thermodynamic_settings(1.0, quadrature="warped_trapezium", kl_form="none")
    assert integral.configured_estimate(BY_HAND, settings) is None
    recorded = BY_HAND.assign(weight=[0.1, 0.4, 0.5])
    found = integral.configured_estimate(recorded, settings)
    assert found == ("warped_trapezium", pytest.approx(-3.0 - 5.6 - 5.0))
    without = BY_HAND.drop(columns=["kl_forward", "kl_backward"])
    assert integral.configured_estimate(without, thermodynamic_settings(1.0)).label == "T"


def test_the_integral_has_a_panel_per_cell_with_its_own_estimate(study):
    cells = {k: s for k, s in cells_of(study).items() if s.power in (1.0, 6.0)}
    parts = [table_of_temperatures(key, s.power) for key, s in cells.items()]
    figure = integral.integral(study, pd.concat(parts))
    assert drawn(figure).std() > 5.0
    assert [axis.get_title() for axis in figure.axes] == ["p = 1", "p = 6"]
    for axis, part, settings in zip(figure.axes, parts, cells.values(), strict=True):
        label, value = integral.configured_estimate(part, settings)
        texts = [text.get_text() for text in axis.texts]
        assert f"{label} {value:.4g}" in texts
        assert any(f"T {integral.sums(part).trapezium:.4g}" in text for text in texts)
    assert integral.integral(study, pd.DataFrame()) is None


def test_cost_adds_up(study):
    time, work = cost(study).axes
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
    path = samples.newest_samples(tmp_path)
    assert path is not None
    assert path.stem == "epoch_0010"
    settings = thermodynamic_settings(6.0)
    figure = samples.sample_grids({cell_key(settings): path}, {cell_key(settings): settings})
    red = (drawn(figure) == (255, 0, 0)).all(axis=-1)
    assert red.mean() > 0.2
    assert samples.sample_grids({}, {}) is None
    assert samples.newest_samples(tmp_path / "rep_00") is None


def test_a_damaged_picture_is_left_out(tmp_path):
    paths = [tmp_path / name for name in ("text.png", "cut.png", "good.png")]
    Image.new("RGB", (64, 64), "red").save(paths[2])
    paths[0].write_text("no picture")
    paths[1].write_bytes(paths[2].read_bytes()[:60])
    cells = {cell_key(s): s for s in (thermodynamic_settings(p) for p in (1.0, 3.0, 6.0))}
    figure = samples.sample_grids(dict(zip(cells, paths, strict=True)), cells)
    assert [axis.get_title() for axis in figure.axes] == ["p = 6"]
    assert samples.sample_grids({next(iter(cells)): paths[0]}, cells) is None


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


def test_one_repetition_and_missing_readings_still_draw():
    settings = [vanilla_settings(25.0), vanilla_settings(75.0), thermodynamic_settings(6.0)]
    settings.append(thermodynamic_settings(1.0))
    frame = pd.concat([cell_frame(s, 0.3, 0.04, 1, 2) for s in settings], ignore_index=True)
    frame.loc[frame["batch_size"] == 25.0, KID] = np.nan
    for name in ("batch", "power", "metric", "regimes", "loss", "variance"):
        figure = DRAWN[name](frame)
        assert drawn(figure).std() > 1.0
        assert "One repetition per cell." in words(figure)
    assert "Not evaluated: 1 of 4 cells." in words(DRAWN["metric"](frame))


def test_a_single_run_has_curves_and_no_figure_of_one_point():
    frame = cell_frame(thermodynamic_settings(6.0), 0.3, 0.04, repetitions=1)
    frame["val_log_likelihood"] = -40.0 + frame["epoch"]
    entries = catalogue.catalogue(frame, Readings(frame, pd.DataFrame(), [], []), NETWORK)
    names = {entry.name for entry in entries if entry.make() is not None}
    assert names == {
        *("training_loss", "variance_curves", "kid_curves", "likelihood_curves"),
        "temperature_schedules",
    }
    once = frame[frame["epoch"] == 1.0]
    assert DRAWN["loss"](once) is None
    assert DRAWN["variance"](once) is None


def test_captions_describe_only_what_is_there(study):
    both = words(DRAWN["metric"](study))
    assert "Curves:" in both
    assert "dashed" in both  # p ≤ 1 has three points
    two = study[study["power"].isin([0.1, 6.0])]
    assert "Curves:" not in words(DRAWN["metric"](two))
    long = cell_frame(vanilla_settings(25.0), 0.5, 0.05, repetitions=2, epochs=80)
    peak = long.assign(train_loss=100.0 + 1e4 * (long["epoch"] == 1.0) + 0.1 * long["epoch"])
    assert "leaves out" in words(DRAWN["loss"](peak))
    assert "leaves out" not in words(DRAWN["loss"](study))
    assert "where not said otherwise" in words(DRAWN["schedules"](study))
    usual = study[study["num_temperatures"] == 10.0]
    assert "where not said otherwise" not in words(DRAWN["schedules"](usual))
    many = [cell_frame(vanilla_settings(float(b)), 0.5, 0.05, 1, 2) for b in range(1, 43)]
    assert "The first 40 of 42 cells." in words(DRAWN["loss"](pd.concat(many, ignore_index=True)))
    assert "The first" not in words(DRAWN["loss"](study))
    assert "FLOPs" not in words(cost(study.drop(columns="flops_per_step")))


def test_regimes_stand_side_by_side_on_one_scale(study):
    axes = DRAWN["regimes"](study).axes
    assert len(axes) == 3
    assert len({(axis.get_xlim(), axis.get_ylim()) for axis in axes}) == 1


@pytest.mark.parametrize("name", ["metric", "changes", "by power", "schedules"])
def test_legends_stand_outside_the_axes(study, name):
    figure = DRAWN[name](study)
    figure.canvas.draw()
    (legend,) = figure.legends
    assert all(axis.get_legend() is None for axis in figure.axes)
    assert not legend.get_window_extent().overlaps(figure._suptitle.get_window_extent())
    for axis in figure.axes:
        assert not legend.get_window_extent().overlaps(axis.get_window_extent())


def test_held_out_likelihoods_are_compared_by_power(study):
    likelihood = study.assign(val_log_likelihood=-50.0 + study["power"].fillna(0.0))
    (axis,) = metric.metric_by_power(likelihood, "val_log_likelihood").axes
    assert axis.get_ylabel() == "held-out log-likelihood, nats"
    assert metric.metric_by_power(study, "val_log_likelihood") is None
