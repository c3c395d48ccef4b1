"""Claims and verdicts on readings whose truth is known, and the quadratic fits."""

import numpy as np
import pandas as pd
import pytest
from study_builders import (
    NETWORK,
    cell_frame,
    study_frame,
    thermodynamic_settings,
    vanilla_settings,
)

from study.claims import COLUMNS, decide, verdicts
from study.claims.evidence import Evidence, Sample, poorer_at_equal_variance
from study.readings import final
from study.tables import cells_table, fits_table, quadratic_fit

KID = f"{NETWORK}_kid_inf"


def evidence(low, high, claimed=1, null=0.0, margin=1.0):
    middle = (low + high) / 2
    return Evidence("", "", middle, low, high, 0.0, "", claimed, null, margin)


@pytest.mark.parametrize(
    ("case", "p_value", "expected"),
    [
        (evidence(0.5, 3.0), 0.01, verdicts.SUPPORTED),
        (evidence(-3.0, -0.5, claimed=-1), 0.01, verdicts.SUPPORTED),
        (evidence(0.5, 3.0), 0.06, verdicts.UNDECIDED),  # the correction takes it back
        (evidence(-0.5, 3.0), 0.01, verdicts.UNDECIDED),  # the interval allows for both
        (evidence(-3.0, -0.5), 0.01, verdicts.NOT_SUPPORTED),  # the opposite
        (
            evidence(-0.5, 0.9),
            0.5,
            verdicts.NOT_SUPPORTED,
        ),  # too small to matter
        (evidence(-0.9, 0.5, claimed=-1), 0.5, verdicts.NOT_SUPPORTED),
        (evidence(0.1, 0.9), 0.06, verdicts.UNDECIDED),  # small, but it may well be there
        (evidence(-0.5, 1.1), 0.5, verdicts.UNDECIDED),
        (evidence(-0.5, 3.0, null=-1.0, margin=0.0), 0.01, verdicts.SUPPORTED),  # no worse than
        (evidence(-1.5, 3.0, null=-1.0, margin=0.0), 0.5, verdicts.UNDECIDED),
        (evidence(-5.0, -2.0, null=-1.0, margin=0.0), 0.5, verdicts.NOT_SUPPORTED),
    ],
)
def test_the_rule_of_the_verdicts(case, p_value, expected):
    assert verdicts.verdict(case, p_value)[0] == expected


def found_verdicts(table):
    return dict(zip(table["claim"], table["verdict"], strict=True))


def test_a_study_in_which_the_claims_hold(study):
    table = decide(final(study), {"KID": KID})
    assert list(table.columns) == COLUMNS
    found = found_verdicts(table)
    supported = {
        "the variance falls with the batch size",
        "p > 1: the variance rises with p",
        "p > 1: KID improves up to p = 6",
        "p > 1: KID worsens beyond p = 6",
        "p ≤ 1: the variance rises as p falls",
        "p ≤ 1: raising p improves KID",
        "p ≤ 1: poorer KID than p > 1",
        "p > 1: narrower spread over repetitions than batching's",
        "vanilla has a better KID than the best p at the same batch size",
        "vanilla has a better KID than TI over all cells",
        "variance alone does not predict KID: p ≤ 1 is poorer than vanilla at equal variance",
        "raising N_t lowers the variance",
        "raising N_t improves KID",
        "raising K lowers the variance",
        "raising K does not improve KID",
        "raising η lowers the variance",
    }
    assert supported <= {claim for claim, verdict in found.items() if verdict == "supported"}
    assert set(table["table"]) == {"Table 2", "Table 3"}


@pytest.mark.slow
def test_studies_in_which_nothing_depends_on_anything():
    """Any claim supported: at most 5 % of null studies for each of two families (3 errors)."""
    cells = [vanilla_settings(b) for b in (25.0, 50.0, 75.0, 150.0)]
    cells += [thermodynamic_settings(p) for p in (0.1, 0.3, 1.0, 2.0, 3.0, 6.0, 10.0)]
    studies, mistaken = 40, 0
    for study in range(studies):
        parts = [
            cell_frame(s, 0.5, 0.05, epochs=1, seed=100 * study + index, spread=0.05)
            for index, s in enumerate(cells)
        ]
        table = decide(final(pd.concat(parts, ignore_index=True)), {"KID": KID})
        mistaken += "supported" in set(table["verdict"])
    assert mistaken / studies <= 0.10 + 3 * np.sqrt(0.10 * 0.90 / studies)


def test_effects_are_those_put_in():
    """Variance halves and KID falls by 0.01 with every doubling of the batch size."""
    parts = [
        cell_frame(vanilla_settings(25.0 * 2**k), 0.8 / 2**k, 0.09 - 0.01 * k, spread=1e-4)
        for k in range(3)
    ]
    table = decide(final(pd.concat(parts)), {"KID": KID}).set_index("claim")
    variance = table.loc["the variance falls with the batch size"]
    assert variance["effect"] == pytest.approx(-50.0, abs=0.1)
    assert variance["ci_low"] < variance["effect"] < variance["ci_high"]
    kid = table.loc["smaller batches improve KID"]
    assert kid["effect"] == pytest.approx(-0.01, rel=1e-2)
    assert (kid["verdict"], kid["reason"]) == ("not supported", "the opposite effect")
    until = table.loc["the smallest batch is past the best KID"]
    assert until["effect"] == pytest.approx(0.02, rel=1e-2)
    assert "less batch 100" in until["comparison"]


def test_holm_runs_over_the_claims_of_one_table(study):
    table = decide(final(study), {"KID": KID})
    family = table[(table["table"] == "Table 3")]
    smallest = family["p_value"].idxmin()
    assert family.loc[smallest, "p_holm"] == pytest.approx(
        min(1.0, len(family) * family.loc[smallest, "p_value"])
    )


def test_each_variant_of_the_loss_is_tested_by_itself():
    exact, none = (study_frame(prior_gradient=g) for g in ("contrastive", "none"))
    vanilla = exact["loss"] == "vanilla"
    frame = pd.concat([exact, none[~vanilla]], ignore_index=True)
    table = decide(final(frame), {"KID": KID})
    rising = table[table["claim"] == "p > 1: the variance rises with p"]
    assert len(rising) == 2
    gradients = {"contrastive", "none"}
    assert gradients == {word for name in rising["variant"] for word in gradients if word in name}
    assert (table["claim"] == "the variance falls with the batch size").sum() == 1


def test_claims_without_their_cells_are_left_out():
    frame = pd.concat([cell_frame(vanilla_settings(b), 0.5, 0.05) for b in (25.0, 75.0)])
    found = found_verdicts(decide(final(frame), {"KID": KID}))
    assert "the variance falls with the batch size" in found
    assert "the smallest batch is past the best KID" not in found  # needs three levels
    single = cell_frame(vanilla_settings(25.0), 0.5, 0.05)
    assert decide(final(single), {"KID": KID}).empty


def test_one_repetition_per_cell_decides_nothing():
    frame = pd.concat(
        [cell_frame(vanilla_settings(b), 10 / b, 0.05, repetitions=1) for b in (25.0, 50.0, 75.0)]
    )
    assert decide(final(frame), {"KID": KID}).empty


def test_readings_that_are_not_finite_are_not_counted(study):
    last = final(study)
    first = last["batch_size"] == 25.0
    last.loc[first & (last["repetition"] == 0), ["train_grad_var", KID]] = np.nan
    table = decide(last, {"KID": KID}).set_index("claim")
    row = table.loc["the variance falls with the batch size"]
    assert "n = 4+5+5+5" in row["comparison"]
    assert np.isfinite(row["effect"])


def test_a_quadratic_is_found_again():
    x = np.array([0.1, 0.2, 0.35, 0.5])
    fit = quadratic_fit(x, 0.04 + 2.0 * (x - 0.3) ** 2)
    assert fit.vertex == pytest.approx(0.3)
    np.testing.assert_allclose(fit.coefficients, [0.22, -1.2, 2.0], rtol=1e-6)
    assert fit.r_squared == pytest.approx(1.0)
    assert np.isnan(quadratic_fit(x, 1.0 - x**2).vertex)  # a maximum is no minimum
    assert quadratic_fit([0.1, 0.2], [1.0, 2.0]) is None
    assert quadratic_fit([0.1, 0.2, np.nan], [1.0, 2.0, 3.0]) is None


def test_the_fits_of_the_regimes(study):
    table = fits_table(study, KID).set_index("regime")
    assert list(table.index) == ["vanilla", "p > 1", "0 < p ≤ 1"]
    row = table.loc["p > 1"]
    assert row["ci_low"] < row["variance_at_minimum"] < row["ci_high"]
    assert row["lowest_variance"] < row["variance_at_minimum"] < row["highest"]
    assert np.isnan(table.loc["0 < p ≤ 1", "r_squared"])  # three points: nothing is tested


def test_means_and_deviations_of_cells():
    frame = cell_frame(vanilla_settings(25.0), 0.5, 0.05, repetitions=3)
    values = final(frame)["train_grad_var"].to_numpy()
    (row,) = cells_table(frame).to_dict("records")
    assert row["train_grad_var_mean"] == pytest.approx(values.sum() / 3)
    deviations = values - values.mean()
    assert row["train_grad_var_sd"] == pytest.approx(np.sqrt(np.sum(deviations**2) / 2))
    assert row["hours_mean"] == pytest.approx(3 * 3.6 / 3600)
    assert row["repetitions"] == 3


def test_a_grid_of_two_settings_names_the_one_that_stays():
    frames = [
        cell_frame(
            thermodynamic_settings(0.1, num_temperatures=n_t, posterior_steps=k),
            variance=0.5,
            kid=0.05,
            seed=n_t + k,
        )
        for n_t in (4, 8)
        for k in (5, 10)
    ]
    claims = decide(final(pd.concat(frames)), {"KID": KID})
    names = claims[["table", "claim", "variant"]]
    assert len(names) >= 8
    assert not names.duplicated().any()


def cells_by_hand(variances, means):
    """Cells of two repetitions each with the mean variance and mean metric given."""
    return [
        Sample(np.array([v, v]), np.array([m - 0.5, m + 0.5]))
        for v, m in zip(variances, means, strict=True)
    ]


def test_equal_variance_is_decided_by_cells():
    """The hand-computed jackknife of `statistics`: log variances 0 and 1, difference 6."""
    e = np.e
    first, second = cells_by_hand([1.0, e], [0.0, 2.0]), cells_by_hand([1.0, e], [5.0, 9.0])
    found = poorer_at_equal_variance(first, second, ("vanilla", "p ≤ 1"), "KID")
    assert found.effect == pytest.approx(6.0)
    assert found.high - found.effect == pytest.approx(12.7062047 * np.sqrt(3.0))
    assert found.comparison.startswith("p ≤ 1 (2 cells) less vanilla (2 cells)")
    assert found.margin == pytest.approx(0.05 * 4.0)


def test_more_repetitions_of_the_same_cells_are_no_more_evidence():
    variances, means = [1.0, 2.0, 4.0], [0.05, 0.04, 0.04]
    few = cells_by_hand(variances, means)
    many = [Sample(np.tile(s.variance, 50), np.tile(s.quality, 50)) for s in few]
    worse = cells_by_hand([1.5, 3.0], [0.07, 0.08])
    found = [poorer_at_equal_variance(s, worse, ("a", "b"), "KID") for s in (few, many)]
    assert found[1].high - found[1].low == pytest.approx(found[0].high - found[0].low)


@pytest.mark.parametrize("variances", [[5.0, 9.0], [2.0]])
def test_without_common_variances_or_a_second_cell_nothing_is_decided(variances):
    first = cells_by_hand([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    second = cells_by_hand(variances, [5.0] * len(variances))
    assert poorer_at_equal_variance(first, second, ("a", "b"), "KID") is None


def judged(table, variant, metric, p_value):
    one = evidence(1.0, 3.0)._replace(p_value=p_value)
    claim = verdicts.Claim(table, "", metric, one)
    return verdicts.Tested(claim, one, variant, metric)


def test_families_are_corrected_apart_and_as_one():
    """Holm by hand: in families 2 x 0.01 and 1 x 0.02; as one 4 x 0.01, 3 x 0.02, 2 x 0.03."""
    rows = verdicts.judge(
        [
            judged("Table 2", "vanilla", "KID", 0.02),
            judged("Table 2", "vanilla", "KID", 0.01),
            judged("Table 2", "vanilla", "FID", 0.04),
            judged("Table 3", "TI", "KID", 0.03),
        ]
    )
    np.testing.assert_allclose(rows["p_holm"], [0.02, 0.02, 0.04, 0.03])
    np.testing.assert_allclose(rows["p_holm_one_family"], [0.06, 0.04, 0.06, 0.06])
    assert rows["verdict"].tolist() == ["supported"] * 4
    assert rows["verdict_one_family"].tolist() == [*("undecided", "supported"), *["undecided"] * 2]
    assert rows["family"].nunique() == 3


def test_the_variance_is_tested_once_and_with_the_first_metric(study):
    table = decide(final(study), {"KID": KID, "FID": f"{NETWORK}_fid_inf"})
    variance = table[table["reading"] == "variance over entries"]
    assert not variance.duplicated(["claim", "variant"]).any()
    assert all(name.endswith("KID") for name in variance["family"])
    for name, rows in table.groupby("family"):
        smallest = rows["p_value"].idxmin()
        expected = min(1.0, len(rows) * rows.loc[smallest, "p_value"])
        assert rows.loc[smallest, "p_holm"] == pytest.approx(expected), name
