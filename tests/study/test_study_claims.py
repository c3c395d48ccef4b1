"""Claims and verdicts on readings whose truth is known, and the quadratic fits."""

import numpy as np
import pytest
from study_builders import (
    KID,
    NETWORK,
    cell_frame,
    make_section,
    study_frames,
    tempered_cell,
    vanilla_cell,
)

from study.claims import COLUMNS, decide, verdicts
from study.claims.evidence import Evidence, Sample, at_equal_variance
from study.figures import by_variance
from study.statistics import Estimate
from study.tables import cells_table, fits_table, quadratic_fit


def decided(*frames):
    """The claims on KID."""
    section = make_section(*frames)
    return decide(section.cells, section.last, {"KID": KID})


def evidence(low, high, sign=1, null=0.0, margin=1.0):
    estimate = Estimate((low + high) / 2, low, high, 0.0)
    return Evidence("", "", estimate, "", sign, null, margin)


def test_verdicts_follow_estimate_and_p_value():
    for case, p_value, expected in [
        (evidence(0.5, 3.0), 0.01, verdicts.SUPPORTED),
        (evidence(-3.0, -0.5, sign=-1), 0.01, verdicts.SUPPORTED),
        (evidence(0.5, 3.0), 0.06, verdicts.UNDECIDED),  # the correction takes it back
        (evidence(-0.5, 3.0), 0.01, verdicts.UNDECIDED),  # the interval allows for both
        (evidence(-3.0, -0.5), 0.01, verdicts.NOT_SUPPORTED),  # the opposite
        (
            evidence(-0.5, 0.9),
            0.5,
            verdicts.NOT_SUPPORTED,
        ),  # too small to matter
        (evidence(-0.9, 0.5, sign=-1), 0.5, verdicts.NOT_SUPPORTED),
        (evidence(0.1, 0.9), 0.06, verdicts.UNDECIDED),  # small, but it may well be there
        (evidence(-0.5, 1.1), 0.5, verdicts.UNDECIDED),
        (evidence(-0.5, 3.0, null=-1.0, margin=0.0), 0.01, verdicts.SUPPORTED),  # no worse than
        (evidence(-1.5, 3.0, null=-1.0, margin=0.0), 0.5, verdicts.UNDECIDED),
        (evidence(-5.0, -2.0, null=-1.0, margin=0.0), 0.5, verdicts.NOT_SUPPORTED),
        # No difference.
        (evidence(-0.5, 0.9, sign=0), 0.9, verdicts.SUPPORTED),
        (evidence(0.1, 0.9, sign=0), 0.01, verdicts.SUPPORTED),  # too small to matter
        (evidence(0.1, 1.1, sign=0), 0.01, verdicts.NOT_SUPPORTED),
        (evidence(-1.1, -0.1, sign=0), 0.01, verdicts.NOT_SUPPORTED),
        (evidence(0.1, 1.1, sign=0), 0.06, verdicts.UNDECIDED),  # the correction takes it back
        (evidence(-0.5, 1.1, sign=0), 0.5, verdicts.UNDECIDED),
    ]:
        assert verdicts.verdict(case, p_value)[0] == expected


def test_a_study_in_which_the_claims_hold(study):
    table = decide(study.cells, study.last, {"KID": KID})
    assert list(table.columns) == COLUMNS
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
    assert supported <= set(table.loc[table["verdict"] == "supported", "claim"])
    assert set(table["table"]) == {"Table 2", "Table 3"}


@pytest.mark.slow
def test_studies_in_which_nothing_depends_on_anything():
    """Any claim supported: at most 5 % of null studies for each of two families (3 errors)."""
    cells = [vanilla_cell(b) for b in (25.0, 50.0, 75.0, 150.0)]
    cells += [tempered_cell(p) for p in (0.1, 0.3, 1.0, 2.0, 3.0, 6.0, 10.0)]
    studies, mistaken = 40, 0
    for study in range(studies):
        parts = [
            cell_frame(s, 0.5, 0.05, epochs=1, seed=100 * study + index, spread=0.05)
            for index, s in enumerate(cells)
        ]
        table = decided(*parts)
        mistaken += "supported" in set(table["verdict"])
    assert mistaken / studies <= 0.10 + 3 * np.sqrt(0.10 * 0.90 / studies)


def test_effects_are_those_put_in():
    """Variance halves and KID falls by 0.01 with every doubling of the batch size."""
    parts = [
        cell_frame(vanilla_cell(25.0 * 2**k), 0.8 / 2**k, 0.09 - 0.01 * k, spread=1e-4)
        for k in range(3)
    ]
    table = decided(*parts).set_index("claim")
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
    table = decide(study.cells, study.last, {"KID": KID})
    family = table[(table["table"] == "Table 3")]
    smallest = family["p_value"].idxmin()
    assert family.loc[smallest, "p_holm"] == pytest.approx(
        min(1.0, len(family) * family.loc[smallest, "p_value"])
    )


def test_each_variant_of_the_loss_is_tested_by_itself():
    frames = study_frames(**{"loss.prior_gradient": "contrastive"})
    detached = study_frames(**{"loss.prior_gradient": "none"})
    table = decided(
        *frames, *(frame for frame in detached if frame["loss.name"].iloc[0] != "vanilla")
    )
    rising = table[table["claim"] == "p > 1: the variance rises with p"]
    assert len(rising) == 2
    gradients = {"contrastive", "none"}
    assert gradients == {word for name in rising["variant"] for word in gradients if word in name}
    assert (table["claim"] == "the variance falls with the batch size").sum() == 1


def test_claims_without_their_cells_are_left_out():
    claims = set(decided(*(cell_frame(vanilla_cell(b), 0.5, 0.05) for b in (25.0, 75.0)))["claim"])
    assert "the variance falls with the batch size" in claims
    assert "the smallest batch is past the best KID" not in claims  # needs three levels
    assert decided(cell_frame(vanilla_cell(25.0), 0.5, 0.05)).empty


def test_one_repetition_per_cell_decides_nothing():
    batches = (25.0, 50.0, 75.0)
    frames = [cell_frame(vanilla_cell(b), 10 / b, 0.05, repetitions=1) for b in batches]
    assert decided(*frames).empty


def test_readings_that_are_not_finite_are_not_counted(study):
    last = study.last.copy()
    first = last["batch_size"] == 25.0
    last.loc[first & (last["repetition"] == 0), ["train_grad_var", KID]] = np.nan
    table = decide(study.cells, last, {"KID": KID}).set_index("claim")
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
    frame = cell_frame(vanilla_cell(25.0), 0.5, 0.05, repetitions=3)
    section = make_section(frame)
    values = section.last["train_grad_var"].to_numpy()
    (row,) = cells_table(section).to_dict("records")
    assert row["train_grad_var_mean"] == pytest.approx(values.sum() / 3)
    deviations = values - values.mean()
    assert row["train_grad_var_sd"] == pytest.approx(np.sqrt(np.sum(deviations**2) / 2))
    assert row["hours_mean"] == pytest.approx(3 * 3.6 / 3600)
    assert row["repetitions"] == 3


def test_a_grid_of_two_settings_names_the_one_that_stays():
    frames = [
        cell_frame(
            tempered_cell(
                0.1,
                **{"loss.num_temperatures": float(n_t), "sampler.posterior.num_steps": float(k)},
            ),
            variance=0.5,
            kid=0.05,
            seed=n_t + k,
        )
        for n_t in (4, 8)
        for k in (5, 10)
    ]
    claims = decided(*frames)
    names = claims[["table", "claim", "variant"]]
    assert len(names) >= 8
    assert not names.duplicated().any()


def cells_by_hand(variances, means):
    """Cells of two repetitions each with the mean variance and mean metric given."""
    pairs = enumerate(zip(variances, means, strict=True))
    return {i: Sample(np.array([v, v]), np.array([m - 0.5, m + 0.5])) for i, (v, m) in pairs}


def test_equal_variance_is_decided_by_cells():
    """The hand-computed jackknife of `statistics`: log variances 0 and 1, difference 6."""
    e = np.e
    groups = {
        "vanilla": cells_by_hand([1.0, e], [0.0, 2.0]),
        "p ≤ 1": cells_by_hand([1.0, e], [5.0, 9.0]),
    }
    evidence = at_equal_variance(groups, 1, "KID")
    assert evidence.estimate.value == pytest.approx(6.0)
    reach = evidence.estimate.high - evidence.estimate.value
    assert reach == pytest.approx(12.7062047 * np.sqrt(3.0))
    assert evidence.comparison.startswith("p ≤ 1 (2 cells) less vanilla (2 cells)")
    assert evidence.margin == pytest.approx(0.05 * 4.0)


def test_more_repetitions_of_the_same_cells_are_no_more_evidence():
    few = cells_by_hand([1.0, 2.0, 4.0], [0.05, 0.04, 0.04])
    many = {i: Sample(np.tile(s.variance, 50), np.tile(s.quality, 50)) for i, s in few.items()}
    worse = cells_by_hand([1.5, 3.0], [0.07, 0.08])
    first, second = (
        at_equal_variance({"a": cells, "b": worse}, 1, "KID").estimate for cells in (few, many)
    )
    assert second.high - second.low == pytest.approx(first.high - first.low)


def test_without_common_variances_or_a_second_cell_nothing_is_decided():
    for variances in [[5.0, 9.0], [2.0]]:
        first = cells_by_hand([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
        second = cells_by_hand(variances, [5.0] * len(variances))
        assert at_equal_variance({"a": first, "b": second}, 1, "KID") is None


def judged(table, variant, metric, p_value):
    case = evidence(1.0, 3.0)
    case = case._replace(estimate=case.estimate._replace(p_value=p_value))
    return verdicts.Claim(table, variant, metric, metric, "", case)


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
    metrics = {"KID": KID, "FID": f"{NETWORK}_fid_inf"}
    table = decide(study.cells, study.last, metrics)
    variance = table[table["reading"] == "variance over entries"]
    assert not variance.duplicated(["claim", "variant"]).any()
    assert all(name.endswith("KID") for name in variance["family"])
    for name, rows in table.groupby("family"):
        smallest = rows["p_value"].idxmin()
        expected = min(1.0, len(rows) * rows.loc[smallest, "p_value"])
        assert rows.loc[smallest, "p_holm"] == pytest.approx(expected), name


# Variants of the loss: does another gradient or quadrature improve small p?

KID_BY_POWER = {0.1: 0.08, 1.0: 0.06, 3.0: 0.04, 6.0: 0.04}


def variant(shift_below, shift_above=0.0, seed=0, **fields):
    """A variant whose KID is shifted from the published form's, below and above p = 1."""
    parts = []
    for power, kid in KID_BY_POWER.items():
        shift = shift_below if power <= 1.0 else shift_above
        cell = tempered_cell(power, **fields)
        parts.append(cell_frame(cell, 0.3 + power, kid + shift, seed=seed, spread=0.01))
    return parts


def compared(*variants):
    """The claims that compare some variants."""
    frames = [frame for frames in variants for frame in frames]
    table = decided(cell_frame(vanilla_cell(75.0), 0.5, 0.03), *frames)
    return table[table["variant"] == "TI, compared"]


def test_a_variant_that_improves_only_small_p():
    published = variant(0.0, **{"loss.prior_gradient": "none"})
    table = compared(published, variant(-0.02, seed=1, **{"loss.prior_gradient": "contrastive"}))
    better, gap = table.itertuples(index=False)
    assert "better KID with prior gradient contrastive" in better.claim
    assert better.effect == pytest.approx(-0.02, abs=0.002)
    assert gap.effect == pytest.approx(-0.02, abs=0.002)
    assert (better.verdict, gap.verdict) == ("supported", "supported")


def test_a_variant_that_is_better_everywhere_does_not_narrow_the_gap():
    published = variant(0.0, **{"loss.prior_gradient": "none"})
    fields = {"loss.prior_gradient": "none", "loss.quadrature": "right"}
    better, gap = compared(published, variant(-0.02, -0.02, 1, **fields)).itertuples(index=False)
    assert better.verdict == "supported"
    assert gap.verdict != "supported"
    assert gap.effect == pytest.approx(0.0, abs=0.002)
    assert "p 0.1, 1, 3, 6" in gap.comparison


def test_only_variants_that_differ_in_gradients_and_quadrature_are_compared():
    published = variant(0.0, **{"loss.prior_gradient": "none"})
    assert compared(published, variant(-0.02, seed=1, **{"loss.num_temperatures": 30.0})).empty
    # Without the published form:
    assert compared(variant(0.0), variant(0.0, **{"loss.quadrature": "right"})).empty


def test_the_figure_by_power_has_a_line_for_each_variant():
    parts = [
        variant(shift, **{"loss.prior_gradient": g}) for shift, g in ((0.0, "none"), (-0.02, "c"))
    ]
    section = make_section(cell_frame(vanilla_cell(75.0), 0.5, 0.03), *parts[0], *parts[1])
    figure = by_variance.metric_by_power(section, KID)
    (axis,) = figure.axes
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {"prior gradient none", "prior gradient c", "vanilla, batch = 75"}
    means = [c[0].get_ydata() for c in axis.containers]
    np.testing.assert_allclose(sorted(m[0] for m in means), [0.06, 0.08], rtol=0.03)
