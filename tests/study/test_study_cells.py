"""Cells: their labels and groups; and what readings are called."""

import itertools

import numpy as np
import pandas as pd
from study_builders import tempered_cell, vanilla_cell

from study.cells import (
    describe,
    groups_without,
    label_rows,
    make_cells,
    provenance,
    regime_groups,
    varied,
)
from study.titles import reading_columns, reading_title, split_metric

CHAINS = "sampler.chains_per_image"


def cells_of(*cells):
    return make_cells(pd.DataFrame(cells))


def test_labels_name_the_fields_that_vary():
    cells = cells_of(
        tempered_cell(6.0),
        tempered_cell(0.1, **{"loss.num_temperatures": 30.0}),
        tempered_cell(0.1),
        vanilla_cell(75),
        vanilla_cell(25),
    )
    assert list(cells.index) == [
        *("vanilla, batch = 25", "vanilla, batch = 75"),
        *("p = 0.1", "p = 0.1, N_t = 30", "p = 6"),
    ]
    assert varied(cells) == ["loss.name", "batch_size", "loss.power", "loss.num_temperatures"]


def test_the_label_of_the_only_cell_that_differs_shows_its_field():
    for change in [
        {CHAINS: 4.0},
        {"optimizer.schedule": "constant"},
        {"loss.num_temperatures": 30.0},
        {"loss.quadrature": "right"},
        {"batch_size": 50.0},
    ]:
        for loss in ["vanilla", "thermodynamic"]:
            common = {CHAINS: 2.0, "optimizer.schedule": "cosine"}
            make = vanilla_cell if loss == "vanilla" else tempered_cell
            levels = (25, 75, 150) if loss == "vanilla" else (0.1, 1.0, 6.0)
            cells = [make(level, **common) for level in levels]
            cells += [tempered_cell(3.0, **common)] * (loss == "vanilla")
            changed = make(levels[1], **common) | change
            labelled = cells_of(*cells, changed)
            (label,) = labelled.index[
                (labelled[list(change)] == list(change.values())).all(axis="columns")
            ]
            (value,) = change.values()
            assert str(value if isinstance(value, str) else f"{value:g}") in label
            assert labelled.index.is_unique


def test_labels_are_unique_whatever_varies():
    """Cells with absent fields, numbers alike in six digits, and a grid of further fields."""
    grid = itertools.product((2.0, 4.0, np.nan), ("ula", "mala", np.nan), (1.0, 1.0000001))
    further = [{CHAINS: m, "kernel.name": name, "loss.kl_weight": eta} for m, name, eta in grid]
    cells = cells_of(*(tempered_cell(1.0, **fields) for fields in further))
    assert len(cells) == len(further)
    assert cells.index.is_unique


def test_rows_find_their_cell():
    runs = pd.DataFrame([tempered_cell(6.0), vanilla_cell(25), tempered_cell(6.0)], list("abc"))
    labels = label_rows(runs, make_cells(runs))
    assert labels.to_dict() == {"a": "p = 6", "b": "vanilla, batch = 25", "c": "p = 6"}


def test_groups_agree_in_all_fields_but_one():
    cells = cells_of(
        *(
            tempered_cell(p, **{"loss.quadrature": q})
            for p in (0.1, 6.0)
            for q in ("left", "right")
        ),
        *(vanilla_cell(size) for size in (25, 75)),
    )
    groups = groups_without(cells[cells["loss.power"].notna()], "loss.power")
    assert [group["loss.quadrature"].unique().tolist() for group in groups] == [["left"], ["right"]]
    regimes = [(regime, len(group)) for regime, group in regime_groups(cells)]
    assert regimes == [("vanilla", 2), *[("p > 1", 1)] * 2, *[("0 < p ≤ 1", 1)] * 2]
    assert groups_without(cells.iloc[:0], "loss.power") == []


def test_descriptions_skip_what_is_absent():
    cell = tempered_cell(0.1) | {"loss.kl_form": np.nan, CHAINS: 4.0}
    fields = ("loss.name", "loss.power", "loss.kl_form", "loss.prior_gradient", CHAINS)
    words = "TI, p = 0.1, prior gradient contrastive, sampler.chains_per_image=4"
    assert describe(cell, fields) == words
    assert provenance(cells_of(vanilla_cell(25))) == "Vanilla: maximum-likelihood gradients."
    both = cells_of(
        *(tempered_cell(1.0, **{"loss.prior_gradient": g}) for g in ("none", "contrastive"))
    )
    assert provenance(both).startswith("TI: prior gradient contrastive / none, ")


def test_a_network_ends_where_its_metric_begins():
    for column, network, metric, title in [
        ("inception_v3_kid_inf", "inception_v3", "kid_inf", "KID∞, InceptionV3"),
        (
            *("inception_v3_antialias_kid_inf", "inception_v3_antialias", "kid_inf"),
            "KID∞, InceptionV3 (antialiased)",
        ),
        ("my_net_kid_rbf_inf", "my_net", "kid_rbf_inf", "KID∞ (RBF), my_net"),
        ("my_net_mifid_inf", "my_net", "mifid_inf", "MIFID∞, my_net"),
        ("my_net_coverage", "my_net", "coverage", "coverage, my_net"),
    ]:
        assert split_metric(column) == (network, metric)
        assert reading_title(column) == title


def test_readings_have_the_titles_and_the_order_of_the_registry():
    assert split_metric("train_grad_var") is None
    assert split_metric("n_kid_inf_stderr") is None
    assert reading_title("train_grad_var") == "variance over entries"
    assert reading_title("of_a_later_version") == "of a later version"
    columns = ["hours", "val_loss", "n_kid", "n_kid_inf", "train_loss", "seconds", "train_grad_var"]
    expected = ["train_grad_var", "n_kid_inf", "n_kid", "train_loss", "val_loss", "hours"]
    assert reading_columns(columns) == expected
