"""Every figure on synthetic readings: what stands on its axes, and None where there is no data."""

import io
import itertools

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from study_builders import (
    KID,
    NETWORK,
    cell_frame,
    make_section,
    study_frames,
    tempered_cell,
    vanilla_cell,
)

from study.figures import by_noise, by_variance, integral, report_figures, training
from study.readings import Readings, Section

LIKELIHOOD = "val_log_marginal_likelihood"


def cells_where(section, condition):
    """The section with some of its cells alone."""
    cells = section.cells[condition]
    frame, last = (rows[rows["cell"].isin(cells.index)] for rows in (section.frame, section.last))
    return Section(section.dataset, section.origin, frame, last, cells)


def with_readings(section, **columns):
    """The section with further or other readings, each a function of the frame."""
    new = {name: column(section.frame) for name, column in columns.items()}
    last = {name: column(section.last) for name, column in columns.items()}
    return section._replace(frame=section.frame.assign(**new), last=section.last.assign(**last))


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


def table_of_temperatures(cell, run, power=1.0):
    t = (np.arange(5) / 4) ** power
    e = -30.0 + 20.0 * np.sqrt(t)
    return pd.DataFrame(
        {
            "cell": cell,
            "run": run,
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
    "batch": by_variance.variance_by_batch,
    "power": by_variance.variance_by_power,
    "metric": lambda section: by_variance.metric_by_variance(section, KID),
    "regimes": lambda section: by_variance.metric_by_regime(section, KID),
    "changes": lambda section: by_variance.changes_over_powers(section, KID),
    "by power": lambda section: by_variance.metric_by_power(section, KID),
    "loss": training.training_curves,
    "variance": lambda section: training.reading_curves(section, "train_grad_var"),
    "kid": lambda section: training.reading_curves(section, KID),
    "schedules": integral.temperature_schedules,
    "cost": training.cost,
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
    (axis,) = by_variance.variance_by_power(study).axes
    labels = [tick.get_text() for tick in axis.get_xticklabels()]
    assert labels == ["0.1", "0.3", "1", "2", "3", "6", "10"]
    (axis,) = by_variance.variance_by_batch(study).axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["25", "50", "75", "150"]
    dots = sum(len(c.get_offsets()) for c in axis.collections)
    assert dots == 4 * 5


def test_boxes_of_panels_with_other_powers_stand_at_their_own():
    powers = {"trapezium": (0.1, 1.0, 6.0), "right": (1.0, 3.0)}
    frames = [
        cell_frame(tempered_cell(p, **{"loss.quadrature": quadrature}), 0.3 + 0.01 * p, 0.05)
        for quadrature, levels in powers.items()
        for p in levels
    ]
    axes = by_variance.variance_by_power(make_section(*frames)).axes
    places = []
    for axis in axes:
        labels = [tick.get_text() for tick in axis.get_xticklabels()]
        assert labels == ["0.1", "1", "3", "6"]
        places.append(sorted(round(c.get_offsets()[:, 0].mean()) for c in axis.collections))
    assert sorted(places) == [[0, 1, 3], [1, 2]]


def test_regimes_have_their_points_bars_and_curves(study):
    figure = by_variance.metric_by_variance(study, KID)
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
    frames = study_frames(**{"loss.prior_gradient": "contrastive"})
    none = study_frames(**{"loss.prior_gradient": "none"})
    section = make_section(
        *frames, *(part for part in none if part["loss.name"].iloc[0] != "vanilla")
    )
    figure = by_variance.metric_by_variance(section, KID)
    titles = [axis.get_title().replace("\n", " ") for axis in figure.axes]
    assert len(titles) == 2
    assert any("prior gradient none" in t for t in titles)
    assert any("prior gradient contrastive" in t for t in titles)
    assert len(by_variance.variance_by_power(section).axes) == 2


def test_changed_settings_are_named_in_the_legend(study):
    figure = by_variance.changes_over_powers(study, KID)
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels[3:] == ["p = 0.1, η = 2", "p = 0.1, K = 40", "p = 0.1, N_t = 30"]


def test_the_title_names_the_settings_that_were_changed(study):
    assert "changes to N_t, K and η over" in words(by_variance.changes_over_powers(study, KID))
    usual = study.cells["loss.kl_weight"].isin([1.0, np.nan])
    usual &= study.cells["loss.num_temperatures"].isin([10.0, np.nan])
    assert "changes to K over" in words(
        by_variance.changes_over_powers(cells_where(study, usual), KID)
    )


def test_losses_are_centred(study):
    figure = training.training_curves(study)
    for line in figure.axes[0].lines:
        assert np.mean(line.get_ydata()) == pytest.approx(0.0, abs=1e-9)


def test_schedules_are_those_of_equation_26(study):
    (axis,) = integral.temperature_schedules(study).axes
    by_label = {line.get_label(): line.get_ydata() for line in axis.lines}
    np.testing.assert_allclose(by_label["p = 6"], (np.arange(11) / 10) ** 6, rtol=1e-6)
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
    sums = integral.sums(BY_HAND)
    assert sums == pytest.approx({"left": LEFT, "trapezium": (LEFT + RIGHT) / 2, "right": RIGHT})


WITHOUT_KL = {"loss.kl_form": np.nan, "loss.kl_weight": np.nan}


def test_the_estimate_is_that_of_the_configuration():
    for fields, label, value in [
        ({}, "T + KL", (LEFT + RIGHT) / 2 + (7.0 - 4.0) / 2),
        ({"loss.kl_weight": 2.0}, "T + 2 KL", (LEFT + RIGHT) / 2 + (7.0 - 4.0)),
        ({"loss.kl_form": "sum"}, "T + KL (sum)", (LEFT + RIGHT) / 2 + (7.0 + 4.0) / 2),
        (WITHOUT_KL, "T", (LEFT + RIGHT) / 2),
        ({"loss.quadrature": "left"}, "L + KL", LEFT + 7.0),
        ({"loss.quadrature": "right", "loss.kl_weight": 0.5}, "R + 0.5 KL", RIGHT - 0.5 * 4.0),
    ]:
        cell = pd.Series(tempered_cell(1.0) | fields)
        assert integral.configured_estimate(BY_HAND, cell) == (label, pytest.approx(value))


def test_estimates_of_recorded_weights_and_of_unknown_quadratures():
    cell = pd.Series(tempered_cell(1.0) | {"loss.quadrature": "warped_trapezium"})
    assert integral.configured_estimate(BY_HAND, cell) is None
    recorded = BY_HAND.assign(weight=[0.1, 0.4, 0.5])
    estimate = integral.configured_estimate(recorded, pd.Series(dict(cell) | WITHOUT_KL))
    assert estimate == ("warped_trapezium", pytest.approx(-3.0 - 5.6 - 5.0))
    # Any quadrature is corrected to the trapezium first.
    corrected = integral.configured_estimate(recorded, cell)
    assert corrected.value == pytest.approx((LEFT + RIGHT) / 2 + (7.0 - 4.0) / 2)
    without = BY_HAND.drop(columns=["kl_forward", "kl_backward"])
    assert integral.configured_estimate(without, pd.Series(tempered_cell(1.0))).label == "T"


def test_the_integral_has_a_panel_per_cell_with_its_estimate(study):
    cells = study.cells[study.cells["loss.power"].isin([1.0, 6.0])]
    runs = study.last.drop_duplicates("cell").set_index("cell")["run"]
    parts = [table_of_temperatures(cell, runs[cell], p) for cell, p in cells["loss.power"].items()]
    figure = integral.integral(study, pd.concat(parts))
    assert drawn(figure).std() > 5.0
    assert [axis.get_title() for axis in figure.axes] == ["p = 1", "p = 6"]
    for axis, part, (_, cell) in zip(figure.axes, parts, cells.iterrows(), strict=True):
        label, value = integral.configured_estimate(part, cell)
        texts = [text.get_text() for text in axis.texts]
        assert f"{label} {value:.4g}" in texts
        trapezium = integral.sums(part)["trapezium"]
        assert any(f"T {trapezium:.4g}" in text for text in texts)
    assert integral.integral(study, pd.DataFrame()) is None


def test_cost_of_the_study_adds_up(study):
    time, work = training.cost(study).axes
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
    path = training.newest_samples(tmp_path)
    assert path is not None
    assert path.stem == "epoch_0010"
    section = make_section(cell_frame(tempered_cell(6.0), 0.3, 0.04))
    figure = training.sample_grids(section, {"p = 6": tmp_path})
    red = (drawn(figure) == (255, 0, 0)).all(axis=-1)
    assert red.mean() > 0.2
    assert training.sample_grids(section, {}) is None
    assert training.newest_samples(tmp_path / "rep_00") is None


def test_a_damaged_picture_is_left_out(tmp_path):
    paths = [tmp_path / name / "rep_00/samples/a.png" for name in ("text", "cut", "good")]
    for path in paths:
        path.parent.mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(paths[2])
    paths[0].write_text("no picture")
    paths[1].write_bytes(paths[2].read_bytes()[:60])
    section = make_section(*(cell_frame(tempered_cell(p), 0.3, 0.04) for p in (1.0, 3.0, 6.0)))
    folders = {cell: path.parents[2] for cell, path in zip(section.cells.index, paths, strict=True)}
    figure = training.sample_grids(section, folders)
    assert [axis.get_title() for axis in figure.axes] == ["p = 6"]
    assert training.sample_grids(section, {"p = 1": folders["p = 1"]}) is None


def test_a_metric_of_one_epoch_has_no_curve(study):
    evaluated = with_readings(study, **{KID: lambda f: f[KID].where(f["epoch"] == 3.0)})
    assert DRAWN["kid"](evaluated) is None
    assert DRAWN["kid"](study) is not None


def test_figures_without_data_are_none():
    columns = [KID, f"{NETWORK}_fid_inf", "seconds", "flops_per_step"]
    bare = make_section(cell_frame(vanilla_cell(25.0), 0.5, 0.05).drop(columns=columns))
    for name in ("power", "by power", "metric", "regimes", "changes", "kid", "schedules", "cost"):
        assert DRAWN[name](bare) is None, name


def test_one_repetition_and_missing_readings_still_draw():
    cells = [vanilla_cell(25.0), vanilla_cell(75.0), tempered_cell(6.0), tempered_cell(1.0)]
    frames = [cell_frame(cell, 0.3, 0.04, 1, 2) for cell in cells]
    frames[0][KID] = np.nan
    section = make_section(*frames)
    for name in ("batch", "power", "metric", "regimes", "loss", "variance"):
        figure = DRAWN[name](section)
        assert drawn(figure).std() > 1.0
        assert "One repetition per cell." in words(figure)
    assert "Not evaluated: 1 of 4 cells." in words(DRAWN["metric"](section))


def test_a_single_run_has_curves_and_no_figure_of_one_point():
    frame = cell_frame(tempered_cell(6.0), 0.3, 0.04, repetitions=1)
    section = make_section(frame.assign(**{LIKELIHOOD: -40.0 + frame["epoch"]}))
    readings = Readings(section.frame, [], pd.DataFrame(), [], [])
    names = {figure.name for figure in report_figures(section, readings, NETWORK)}
    assert names == {
        *("training_loss", "variance_curves", "kid_curves", "likelihood_curves"),
        "temperature_schedules",
    }
    once = make_section(frame[frame["epoch"] == 1.0])
    assert DRAWN["loss"](once) is None
    assert DRAWN["variance"](once) is None


def test_captions_describe_only_what_is_there(study):
    both = words(DRAWN["metric"](study))
    assert "Curves:" in both
    assert "dashed" in both  # p ≤ 1 has three points
    two = cells_where(study, study.cells["loss.power"].isin([0.1, 6.0]))
    assert "Curves:" not in words(DRAWN["metric"](two))
    long = cell_frame(vanilla_cell(25.0), 0.5, 0.05, repetitions=2, epochs=80)
    peak = long.assign(train_loss=100.0 + 1e4 * (long["epoch"] == 1.0) + 0.1 * long["epoch"])
    assert "leaves out" in words(DRAWN["loss"](make_section(peak)))
    assert "leaves out" not in words(DRAWN["loss"](study))
    assert "where not said otherwise" in words(DRAWN["schedules"](study))
    usual = cells_where(study, study.cells["loss.num_temperatures"] == 10.0)
    assert "where not said otherwise" not in words(DRAWN["schedules"](usual))
    many = [cell_frame(vanilla_cell(float(b)), 0.5, 0.05, 1, 2) for b in range(1, 43)]
    assert "The first 40 of 42 cells." in words(DRAWN["loss"](make_section(*many)))
    assert "The first" not in words(DRAWN["loss"](study))
    uncounted = study._replace(frame=study.frame.drop(columns="flops_per_step"))
    assert "FLOPs" not in words(training.cost(uncounted))


def test_regimes_stand_side_by_side_on_one_scale(study):
    axes = DRAWN["regimes"](study).axes
    assert len(axes) == 3
    assert len({(axis.get_xlim(), axis.get_ylim()) for axis in axes}) == 1


def test_legends_stand_outside_the_axes(study):
    for name in ["metric", "changes", "by power", "schedules"]:
        figure = DRAWN[name](study)
        figure.canvas.draw()
        (legend,) = figure.legends
        assert all(axis.get_legend() is None for axis in figure.axes)
        assert not legend.get_window_extent().overlaps(figure._suptitle.get_window_extent())
        for axis in figure.axes:
            assert not legend.get_window_extent().overlaps(axis.get_window_extent())


def test_held_out_likelihoods_are_compared_by_power(study):
    likelihood = with_readings(study, **{LIKELIHOOD: lambda f: -50.0 + f["loss.power"].fillna(0.0)})
    (axis,) = by_variance.metric_by_power(likelihood, LIKELIHOOD).axes
    assert axis.get_ylabel() == "held-out log-likelihood (nats)"
    assert by_variance.metric_by_power(study, LIKELIHOOD) is None


def many_settings(count):
    """Cells that differ in four fields, each with a curve of three epochs."""
    cells = [
        tempered_cell(
            power,
            **{
                "loss.quadrature": quadrature,
                "loss.generator_gradient": gradient,
                "sampler.posterior.num_steps": steps,
            },
        )
        for quadrature in ("trapezium", "warped_trapezium")
        for gradient in ("detached", "reweighted")
        for steps in (20.0, 40.0)
        for power in (0.1, 1.0, 3.0, 6.0)
    ]
    frames = [cell_frame(cell, 0.2 + 0.1 * n, 0.04, 1) for n, cell in enumerate(cells[:count])]
    section = make_section(*frames)
    return with_readings(section, train_update_noise=lambda frame: frame["train_grad_var"])


def texts_of_figure(figure):
    """Titles, labels of axes and rows, and legends, with their boxes in pixels."""
    renderer = figure.canvas.get_renderer()
    parts = [figure._suptitle, figure._supxlabel, figure._supylabel]
    parts += [text for legend in figure.legends for text in legend.get_texts()]
    for axis in figure.axes:
        parts += [axis.title, axis.xaxis.label, axis.yaxis.label]
        # Matplotlib also has labels of numbers outside the axis, which are not drawn.
        parts += [label for label in axis.get_yticklabels() if label.get_text()[:1].isalpha()]
    return [
        (part.get_text(), part.get_window_extent(renderer))
        for part in parts
        if part is not None and part.get_text() and part.get_visible()
    ]


@pytest.mark.parametrize(
    "count", [1, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (12, 30))]
)
def test_titles_labels_and_legends_neither_overlap_nor_leave_the_figure(count):
    """Layouts that fail are warnings, which are errors in tests."""
    section = many_settings(count)
    runs = section.last.drop_duplicates("cell").set_index("cell")["run"]
    temperatures = pd.concat([table_of_temperatures(cell, runs[cell]) for cell in runs.index])
    figures = [
        by_noise.noise_by_factor(section),
        training.reading_curves(section, KID),
        by_variance.metric_by_power(section, KID),
        by_variance.metric_by_regime(section, KID),
        by_variance.metric_by_variance(section, KID),
        by_variance.variance_by_power(section),
        training.cost(section),
        integral.integral(section, temperatures),
    ]
    assert sum(figure is not None for figure in figures) >= (8 if count > 3 else 2)
    for figure in filter(None, figures):
        figure.draw_without_rendering()
        boxes = texts_of_figure(figure)
        for text, box in boxes:
            assert box.x0 >= -1, text
            assert box.x1 <= figure.bbox.x1 + 1, text
            assert box.y0 >= -1, text
            assert box.y1 <= figure.bbox.y1 + 1, text
        for (text, box), (other_text, other) in itertools.combinations(boxes, 2):
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(width, height) <= 1, (text, other_text)


@pytest.mark.parametrize("quadrature", ["trapezium", "left", "right", "warped_trapezium"])
def test_the_shaded_area_is_the_sum_of_the_quadrature(quadrature):
    cell = tempered_cell(1.0, **{"loss.quadrature": quadrature}, **WITHOUT_KL)
    section = make_section(cell_frame(cell, 0.3, 0.04))
    table = table_of_temperatures(section.cells.index[0], section.last["run"].iloc[0])
    if quadrature.startswith("warped"):
        table = table.assign(weight=[0.05, 0.15, 0.2, 0.25, 0.35])
    figure = integral.integral(section, table)
    (axis,) = figure.axes
    x, y = axis.collections[0].get_paths()[0].vertices.T
    base = min(table["expected_log_likelihood"].min(), 0.0)
    area = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
    estimate = integral.configured_estimate(table, section.cells.iloc[0])
    assert area == pytest.approx(estimate.value - base)


def test_cells_with_one_value_have_no_panel(study):
    first = study.cells.index[0]
    late = with_readings(
        study, **{KID: lambda f: f[KID].where((f["cell"] == first) | (f["epoch"] == 3.0))}
    )
    figure = DRAWN["kid"](late)
    assert [axis.get_title() for axis in figure.axes] == [first]
    rest = len(study.cells) - 1
    assert f"Left out: {rest} cells with values at fewer than two epochs." in words(figure)


def test_cells_that_all_differ_in_other_settings_share_a_panel():
    cells = [
        tempered_cell(1.0, **{"sampler.posterior.num_steps": 10.0 + steps}) for steps in range(6)
    ]
    section = make_section(*[cell_frame(cell, 0.3, 0.04) for cell in cells])
    assert len(by_variance.metric_by_variance(section, KID).axes) == 1
    figure = by_variance.variance_by_power(section)
    assert len(figure.axes) == 1
    assert "Boxes side by side: cells that differ in other settings." in words(figure)
    lefts = sorted(patch.get_path().vertices[0, 0] for patch in figure.axes[0].patches)
    assert len(lefts) == 6
    assert (np.diff(lefts) > 0.05).all()
