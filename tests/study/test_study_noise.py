"""Experiments on the noise: their knobs, claims, tables and figures, on readings of known truth."""

import numpy as np
import pandas as pd
import pytest
from study_builders import (
    NETWORK,
    cell_frame,
    config,
    thermodynamic_settings,
    vanilla_settings,
    write_run,
)

from study import noise_tables
from study.claims import decide, verdicts
from study.claims.evidence import Evidence
from study.figures import noise
from study.knobs import families
from study.readings import final, load
from study.settings import cells_of, short_labels

KID = f"{NETWORK}_kid_inf"
AMPLIFICATIONS = (1.0, 2.0, 4.0, 8.0, 16.0)


def other(amplification=1.0, accumulate=1, chains=2):
    return (
        f"dial.accumulate={accumulate}; dial.amplification={amplification}; "
        f"sampler.chains_per_image={chains}"
    )


def cells():
    """(knob, settings, noise over the centre's) of an experiment with both losses."""
    centre_t = thermodynamic_settings(1.0, quadrature="warped_trapezium", other=other())
    centre_v = vanilla_settings(75.0)._replace(other=other())
    for centre in (centre_v, centre_t):
        yield "", centre, 1.0
        for factor in AMPLIFICATIONS[1:]:
            yield "amplification", centre._replace(other=other(factor)), factor
        for size in (25.0, 50.0, 150.0):
            yield "batch", centre._replace(batch_size=size), 75.0 / size
        for chains in (4, 8):
            yield "M", centre._replace(other=other(chains=chains)), (2 / chains) ** 0.5
        yield "accumulation", centre._replace(other=other(accumulate=4)), 0.25
    for power in (0.01, 0.1, 0.3, 3.0, 6.0):
        yield "p", centre_t._replace(power=power), 1.5 * power**0.3


def experiment(shift=None, spread=0.01):
    """KID rises by 0.01 per doubling of the noise; the cells of `shift`'s knobs are off by it."""
    parts = []
    for number, (knob, settings, factor) in enumerate(cells()):
        kid = 0.08 + 0.01 * np.log2(factor) + (shift or {}).get(knob, 0.0)
        part = cell_frame(settings, 0.5 * factor, kid, seed=number, spread=spread)
        part["train_update_noise"] = part["train_grad_var"]
        part[f"{KID}_stderr"] = 0.002
        part["val_log_likelihood"] = -100.0 - factor
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def verdict_of(table, words, variant):
    rows = table[table["claim"].str.contains(words) & table["variant"].str.startswith(variant)]
    assert len(rows) == 1, rows[["claim", "variant"]]
    return rows.iloc[0]


def test_knobs_are_found_around_the_centre():
    found = families(cells_of(experiment()))
    assert [one.settings.loss for one in found] == ["vanilla", "thermodynamic"]
    vanilla, thermodynamic = found
    assert vanilla.settings.other == other()
    assert list(vanilla.levels["amplification"].values()) == list(AMPLIFICATIONS)
    assert list(vanilla.levels["batch"].values()) == [25.0, 50.0, 75.0, 150.0]
    assert list(vanilla.levels["M"].values()) == [2.0, 4.0, 8.0]
    assert list(vanilla.levels["accumulation"].values()) == [1.0, 4.0]
    assert "p" not in vanilla.levels
    assert list(thermodynamic.levels["p"].values()) == [0.01, 0.1, 0.3, 1.0, 3.0, 6.0]
    assert len(vanilla.cells) == 11
    assert len(thermodynamic.cells) == 16


def test_a_cell_that_turns_two_knobs_belongs_to_none():
    two = vanilla_settings(25.0)._replace(other=other(4.0))
    frame = pd.concat([experiment(), cell_frame(two, 6.0, 0.1)], ignore_index=True)
    (vanilla, _) = families(cells_of(frame))
    assert len(vanilla.cells) == 11


def test_without_knobs_there_is_no_family():
    frame = pd.concat([cell_frame(thermodynamic_settings(1.0, quadrature=q), 0.5, 0.05)
                       for q in ("left", "right")])  # fmt: skip
    assert families(cells_of(frame)) == []
    assert noise.metric_by_noise(frame, KID) is None
    assert noise_tables.quality_table(frame, NETWORK).empty
    assert noise_tables.knobs_table(frame, KID).empty


def test_labels_name_only_what_differs_from_most_cells():
    labels = set(short_labels(cells_of(experiment())).values())
    assert {"vanilla, batch = 75", "vanilla, batch = 75, dial.amplification=4.0"} <= labels
    assert "p = 0.1, batch = 75" in labels


def test_noise_alone_decides():
    table = decide(final(experiment()), {"KID": KID})
    for variant in ("noise, vanilla", "noise, TI"):
        for words in (
            "the noise rises with amplification",
            "the noise falls with batch size",
            "the noise falls with chains per image",
            "less noise, all else equal, improves KID",
            "noise alone predicts KID: amplification is like",
            "noise alone predicts KID: batch and accumulation is like",
            "noise alone predicts KID: M is like",
        ):
            assert verdict_of(table, words, variant)["verdict"] == "supported", words
    rises = verdict_of(table, "the noise rises with amplification", "noise, TI")
    assert rises["effect"] == pytest.approx(100.0, abs=3.0)
    better = verdict_of(table, "less noise, all else equal", "noise, vanilla")
    assert better["effect"] == pytest.approx(0.01, abs=5e-4)
    assert better["unit"] == "per doubling of amplification"
    assert verdict_of(table, "the noise rises with power p", "noise, TI")["verdict"] == "supported"
    losses = verdict_of(table, "is like vanilla at equal noise", "noise, losses")
    assert losses["verdict"] == "supported"


def test_a_knob_that_does_more_than_noise_is_found():
    table = decide(final(experiment({"batch": 0.03, "accumulation": 0.03})), {"KID": KID})
    for variant in ("noise, vanilla", "noise, TI"):
        found = verdict_of(table, "batch and accumulation is like", variant)
        assert found["verdict"] == "not supported"
        assert found["reason"] == "there is a difference"
        assert found["effect"] == pytest.approx(0.03, abs=0.002)
        assert found["claimed"].startswith("within")


def test_without_a_reading_of_the_noise_no_claim_is_made():
    frame = experiment().drop(columns="train_update_noise")
    table = decide(final(frame), {"KID": KID})
    assert not table["claim"].str.contains("noise").any()


@pytest.mark.parametrize(
    ("ends", "p_value", "expected"),
    [
        ((-0.5, 0.9), 0.9, verdicts.SUPPORTED),
        ((0.1, 0.9), 0.01, verdicts.SUPPORTED),  # a difference, but too small to matter
        ((0.1, 1.1), 0.01, verdicts.NOT_SUPPORTED),
        ((-1.1, -0.1), 0.01, verdicts.NOT_SUPPORTED),
        ((0.1, 1.1), 0.06, verdicts.UNDECIDED),  # the correction takes it back
        ((-0.5, 1.1), 0.5, verdicts.UNDECIDED),
    ],
)
def test_the_rule_for_no_difference(ends, p_value, expected):
    case = Evidence("", "", sum(ends) / 2, *ends, 0.0, "", 0, 0.0, 1.0)
    assert verdicts.verdict(case, p_value)[0] == expected


def test_every_cell_stands_once_in_the_table_of_cells():
    table = noise_tables.quality_table(experiment(), NETWORK)
    assert len(table) == 11 + 16
    assert (table["knob"] == "").sum() == 2
    row = table[(table["knob"] == "p") & (table["value"] == 6.0)].iloc[0]
    assert row["noise_mean"] == pytest.approx(0.75 * 6.0**0.3, rel=0.05)
    assert row["kid_inf_mean"] == pytest.approx(0.08 + 0.01 * np.log2(1.5 * 6.0**0.3), rel=0.05)
    assert row["kid_inf_stderr"] == pytest.approx(0.002)
    assert row["repetitions"] == 5
    assert np.isfinite([row["log_likelihood_mean"], row["hours_mean"], row["kid_inf_sd"]]).all()


def test_knobs_side_by_side():
    table = noise_tables.knobs_table(experiment(spread=1e-4), KID)
    rows = table[table["variant"].str.startswith("TI")].set_index("knob")
    assert rows.loc["amplification", "range"] == pytest.approx(16.0, rel=0.01)
    assert rows.loc["batch", "range"] == pytest.approx(6.0, rel=0.01)
    assert rows.loc["all", "cells"] == 16
    assert rows.loc["all", "slope"] == pytest.approx(0.01, rel=0.01)
    assert rows.loc["all", "ci_low"] < rows.loc["all", "slope"] < rows.loc["all", "ci_high"]
    assert rows.loc["all", "r_squared"] > 0.99
    assert np.isnan(rows.loc["accumulation", "slope"])  # two cells make no line


def test_figures_have_a_colour_for_every_knob():
    frame = experiment()
    for figure in (noise.metric_by_noise(frame, KID), noise.noise_by_knob(frame)):
        figure.canvas.draw()
    against = noise.metric_by_noise(frame, KID)
    assert [len(axis.containers) for axis in against.axes] == [4, 5]
    labels = {text.get_text() for text in against.legends[0].get_texts()}
    assert {"amplification", "power p", "batch size", "centre"} <= labels
    by_knob = noise.noise_by_knob(frame)
    assert {axis.get_xlabel() for axis in by_knob.axes} == {
        *("amplification", "power p", "chains per image M", "batch size", "batches per update"),
    }
    assert noise.metric_by_noise(frame.drop(columns="train_update_noise"), KID) is None


@pytest.mark.parametrize(
    ("epochs", "further"), [((6, 2), None), ((2, 2), None), ((6, 3), "num_epochs=")]
)
def test_epochs_are_no_setting_where_updates_are_equal(tmp_path, epochs, further):
    """Batches of 150 and 50 of 600 images: 4 and 12 updates per epoch."""
    for size, num in zip((150, 50), epochs, strict=True):
        tree = config(batch_size=size, num_epochs=num, data__num_train=600)
        write_run(tmp_path / f"batch{size}", tree)
    labels = {run.settings.other for run in load(tmp_path, None).runs}
    assert labels == {None} if further is None else all(further in one for one in labels)
