"""Experiments on the noise: factors, claims, tables and figures, on readings of known truth."""

import numpy as np
import pytest
from study_builders import (
    KID,
    NETWORK,
    cell_frame,
    make_section,
    tempered_cell,
    vanilla_cell,
)

from study.claims import decide
from study.figures import by_noise
from study.noise import FACTORS, factors_table, families, noise_cells_table

AMPLIFICATION = "gradient_noise.amplification"
ACCUMULATE = "gradient_noise.accumulate"
CHAINS = "sampler.chains_per_image"
CENTRE = {AMPLIFICATION: 1.0, ACCUMULATE: 1.0, CHAINS: 2.0}
AMPLIFICATIONS = (1.0, 2.0, 4.0, 8.0, 16.0)


def cells():
    """(factor, cell, noise over the centre's) of an experiment with both losses."""
    tempered = tempered_cell(1.0, **{"loss.quadrature": "warped_trapezium"}, **CENTRE)
    for centre in (vanilla_cell(75.0, **CENTRE), tempered):
        yield "", centre, 1.0
        for factor in AMPLIFICATIONS[1:]:
            yield "amplification", centre | {AMPLIFICATION: factor}, factor
        for size in (25.0, 50.0, 150.0):
            yield "batch", centre | {"batch_size": size}, 75.0 / size
        for chains in (4.0, 8.0):
            yield "M", centre | {CHAINS: chains}, (2 / chains) ** 0.5
        yield "accumulation", centre | {ACCUMULATE: 4.0}, 0.25
    for power in (0.01, 0.1, 0.3, 3.0, 6.0):
        yield "p", tempered | {"loss.power": power}, 1.5 * power**0.3


def experiment(shift=None, spread=0.01):
    """KID rises by 0.01 per doubling of the noise; cells of factors in `shift` are off by that."""
    parts = []
    for number, (name, cell, factor) in enumerate(cells()):
        kid = 0.08 + 0.01 * np.log2(factor) + (shift or {}).get(name, 0.0)
        part = cell_frame(cell, 0.5 * factor, kid, seed=number, spread=spread)
        part["train_update_noise"] = part["train_grad_var"]
        part[f"{KID}_stderr"] = 0.002
        part["val_log_marginal_likelihood"] = -100.0 - factor
        parts.append(part)
    return parts


@pytest.fixture(scope="module")
def section():
    """The experiment in which noise alone decides KID. Not to be changed."""
    return make_section(*experiment())


def claims_of(section):
    return decide(section.cells, section.last, {"KID": KID})


def verdict_of(table, words, variant):
    rows = table[table["claim"].str.contains(words) & table["variant"].str.startswith(variant)]
    assert len(rows) == 1, rows[["claim", "variant"]]
    return rows.iloc[0]


def test_factors_are_found_around_the_centre(section):
    vanilla, tempered = families(section.cells)
    assert (vanilla.loss, tempered.loss) == ("vanilla", "thermodynamic")
    assert (vanilla.centre, tempered.centre) == ("vanilla, batch = 75", "p = 1, batch = 75")
    assert list(vanilla.levels["amplification"].values()) == list(AMPLIFICATIONS)
    assert list(vanilla.levels["batch"].values()) == [25.0, 50.0, 75.0, 150.0]
    assert list(vanilla.levels["M"].values()) == [2.0, 4.0, 8.0]
    assert list(vanilla.levels["accumulation"].values()) == [1.0, 4.0]
    assert "p" not in vanilla.levels
    assert list(tempered.levels["p"].values()) == [0.01, 0.1, 0.3, 1.0, 3.0, 6.0]
    assert len(vanilla.cells) == 11
    assert len(tempered.cells) == 16


def test_a_cell_that_changes_two_factors_belongs_to_none():
    both = vanilla_cell(25.0, **(CENTRE | {AMPLIFICATION: 4.0}))
    vanilla, _ = families(make_section(*experiment(), cell_frame(both, 6.0, 0.1)).cells)
    assert len(vanilla.cells) == 11


def test_without_factors_there_is_no_family():
    variants = [tempered_cell(1.0, **{"loss.quadrature": name}) for name in ("left", "right")]
    section = make_section(*(cell_frame(cell, 0.5, 0.05) for cell in variants))
    assert families(section.cells) == []
    assert by_noise.metric_by_noise(section, KID) is None
    assert noise_cells_table(section, NETWORK).empty
    assert factors_table(section, KID).empty


def test_labels_name_only_what_differs_from_most_cells(section):
    labels = set(section.cells.index)
    assert {"vanilla, batch = 75", f"vanilla, batch = 75, {AMPLIFICATION}=4"} <= labels
    assert "p = 0.1, batch = 75" in labels


def test_claims_of_noise_hold_where_noise_alone_decides(section):
    table = claims_of(section)
    for variant in ("noise, vanilla", "noise, TI"):
        for words in (
            "the noise rises with amplification",
            "the noise falls with batch size",
            "the noise falls with chains per image",
            "less noise by amplification improves KID",
            "noise alone predicts KID: amplification is like",
            "noise alone predicts KID: batch and accumulation is like",
            "noise alone predicts KID: M is like",
        ):
            assert verdict_of(table, words, variant)["verdict"] == "supported", words
    rises = verdict_of(table, "the noise rises with amplification", "noise, TI")
    assert rises["effect"] == pytest.approx(100.0, abs=3.0)
    better = verdict_of(table, "less noise by amplification", "noise, vanilla")
    assert better["effect"] == pytest.approx(0.01, abs=5e-4)
    assert better["unit"] == "per doubling of amplification"
    assert verdict_of(table, "the noise rises with power p", "noise, TI")["verdict"] == "supported"
    losses = verdict_of(table, "is like vanilla at equal noise", "noise, losses")
    assert losses["verdict"] == "supported"


def test_a_factor_that_does_more_than_noise_is_found():
    table = claims_of(make_section(*experiment({"batch": 0.03, "accumulation": 0.03})))
    for variant in ("noise, vanilla", "noise, TI"):
        claim = verdict_of(table, "batch and accumulation is like", variant)
        assert claim["verdict"] == "not supported"
        assert claim["reason"] == "there is a difference"
        assert claim["effect"] == pytest.approx(0.03, abs=0.002)
        assert claim["claimed"].startswith("within")


def test_without_a_reading_of_the_noise_no_claim_is_made(section):
    without = section._replace(last=section.last.drop(columns="train_update_noise"))
    assert not claims_of(without)["claim"].str.contains("noise").any()
    assert by_noise.metric_by_noise(without, KID) is None


def test_every_cell_stands_once_in_the_table_of_cells(section):
    table = noise_cells_table(section, NETWORK)
    assert len(table) == 11 + 16
    assert (table["factor"] == "").sum() == 2
    row = table[(table["factor"] == "p") & (table["value"] == 6.0)].iloc[0]
    assert row["noise_mean"] == pytest.approx(0.75 * 6.0**0.3, rel=0.05)
    assert row["kid_inf_mean"] == pytest.approx(0.08 + 0.01 * np.log2(1.5 * 6.0**0.3), rel=0.05)
    assert row["kid_inf_stderr"] == pytest.approx(0.002)
    assert row["repetitions"] == 5
    assert np.isfinite([row["log_likelihood_mean"], row["hours_mean"], row["kid_inf_sd"]]).all()


def test_factors_are_drawn_side_by_side():
    table = factors_table(make_section(*experiment(spread=1e-4)), KID)
    rows = table[table["variant"].str.startswith("TI")].set_index("factor")
    assert rows.loc["amplification", "range"] == pytest.approx(16.0, rel=0.01)
    assert rows.loc["batch", "range"] == pytest.approx(6.0, rel=0.01)
    assert rows.loc["all", "cells"] == 16
    assert rows.loc["all", "slope"] == pytest.approx(0.01, rel=0.01)
    assert rows.loc["all", "ci_low"] < rows.loc["all", "slope"] < rows.loc["all", "ci_high"]
    assert rows.loc["all", "r_squared"] > 0.99
    assert np.isnan(rows.loc["accumulation", "slope"])  # two cells make no line


def test_figures_have_a_colour_for_every_factor(section):
    against, by_factor = by_noise.metric_by_noise(section, KID), by_noise.noise_by_factor(section)
    for figure in (against, by_factor):
        figure.canvas.draw()
    assert [len(axis.containers) for axis in against.axes] == [4, 5]
    labels = {text.get_text() for text in against.legends[0].get_texts()}
    assert {"amplification", "power p", "batch size", "centre"} <= labels
    titles = {factor.title for factor in FACTORS.values()}
    assert {axis.get_xlabel() for axis in by_factor.axes} == titles
