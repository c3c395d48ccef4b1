"""Differences of metrics between sets: exact where they can be, errors that cover, verdicts."""

import jax
import numpy as np
import pytest

import thermo_ebm as te
from benchmarks import coverage_of_differences
from thermo_ebm.metrics import fid, kid, paired, subsets, summary
from thermo_ebm.metrics.arrays import FeaturePair
from thermo_ebm.metrics.estimates import HalfSamples, Jackknife
from thermo_ebm.metrics.networks import Outputs
from thermo_ebm.metrics.standard_errors import Variance


def features(shift, seed, num=80, width=6):
    return np.random.default_rng(seed).gamma(2.0, 1.0, (num, width)) + shift


@pytest.fixture(scope="module")
def compared():
    candidates = {"near": features(0.05, 1), "far": features(0.8, 2), "same": features(0.05, 3)}
    return te.compare_features(features(0, 0), candidates, num_sizes=4)


def test_values_are_those_of_each_set_alone(compared):
    real = Outputs(features(0, 0), np.zeros((0, 0)))
    sizes = subsets.extrapolation_sizes(80, 4)
    for name, shift, seed in (("near", 0.05, 1), ("far", 0.8, 2)):
        generated = Outputs(features(shift, seed), np.zeros((0, 0)))
        alone = summary.summarize(jax.random.key(0), real, generated, sizes).values
        assert compared.values[name] == alone


def test_differences_are_those_of_the_values(compared):
    for row in compared.differences:
        first, second = (compared.values[name][row.metric] for name in (row.first, row.second))
        assert row.value == pytest.approx(first - second, rel=1e-9, abs=1e-12)
        assert row.low < row.value < row.high
        assert row.high - row.value == pytest.approx(row.value - row.low)


def test_verdicts_and_numbers_of_images(compared):
    rows = {(row.metric, row.first, row.second): row for row in compared.differences}
    for metric in ("fid", "kid", "fid_inf"):
        assert rows[metric, "near", "far"].verdict == "better"
        assert rows[metric, "far", "same"].verdict == "worse"
        undecided = rows[metric, "near", "same"]
        assert undecided.verdict == "undecided"
        assert undecided.num_images is None or undecided.num_images > 80
    assert rows["precision", "near", "far"].value > 0
    assert rows["precision", "near", "far"].verdict in ("better", "undecided")
    text = compared.table()
    assert "near is better than far" in text
    assert "images a side" in text


def test_the_error_counts_the_real_images_once():
    """Two sets far from the real images in the same direction: the real images' share cancels."""
    real, near, far = features(0, 0), features(1.0, 1), features(1.01, 2)
    result = te.compare_features(real, {"near": near, "far": far}, num_sizes=0)
    rows = {row.metric: row for row in result.differences}
    for metric in ("fid", "kid"):
        apart = np.hypot(*(values[f"{metric}_stderr"] for values in result.values.values()))
        assert rows[metric].stderr < 0.9 * apart
    assert not any(metric.endswith("_inf") for metric in rows)


def test_difference_of_kids_has_the_covariance_of_fresh_sets():
    """Over 300 fresh triples, within 4 of its standard errors."""
    rng = np.random.default_rng(4)
    draws = [subsets.Draw(np.arange(12), np.arange(20)), subsets.all_images(40, 30)]
    values, estimated = [], []
    for _ in range(300):
        real = rng.gamma(2.0, 0.5, (40, 3))
        sums = [
            kid.pair_sums(FeaturePair(real, rng.gamma(2.0, 0.5, (30, 3)) + shift), draws, ("rbf",))[
                "rbf"
            ]
            for shift in (0.3, 0.5)
        ]
        difference = kid.difference(*sums)
        values.append(difference.values)
        estimated.append(difference.covariance)
    values, estimated = np.array(values), np.array(estimated)
    deviation = values - values.mean(axis=0)
    products = deviation[:, :, None] * deviation[:, None, :]
    error = np.sqrt((products.var(axis=0) + estimated.var(axis=0)) / len(values))
    assert (np.abs(estimated.mean(axis=0) - products.mean(axis=0)) < 4 * error).all()


def test_difference_of_kids_without_real_images_in_common_is_that_of_their_distances():
    real, first, second = features(0, 0), features(0.3, 1), features(0.4, 2)
    draw = [subsets.all_images(80, 80)]
    sums = [
        kid.pair_sums(FeaturePair(real, generated), draw, ("polynomial",))["polynomial"]
        for generated in (first, second)
    ]
    expected = kid.kernel_distance(real, first) - kid.kernel_distance(real, second)
    assert kid.difference(*sums).values[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("case", "num_images", "num_features"),
    [
        ("equal", 60, 6),
        *(
            pytest.param(case, 300, 24, marks=pytest.mark.slow)
            for case in coverage_of_differences.CANDIDATES
        ),
    ],
)
def test_intervals_cover(case, num_images, num_features, tmp_path):
    """The short form of `python -m benchmarks.coverage --paired`: 60 repeats."""
    path = tmp_path / "results.jsonl"
    cell = coverage_of_differences.Cell(case, num_images, num_features, 7.0)
    coverage_of_differences.simulate(5, 60, [cell], path, num_sizes=3)
    results = [rows for _, _, rows in coverage_of_differences.read(path)]
    assert len(results) == 60
    for metric in ("fid", "fid_inf", "kid"):
        values, stderrs, _, truth = np.array([rows[metric] for rows in results]).T
        target = values.mean() if np.isnan(truth[0]) else truth[0]
        inside = np.mean(np.abs(values - target) <= 2.04 * stderrs)
        assert inside > 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / 60), metric
        assert 0.7 < np.sqrt(np.mean(stderrs**2)) / values.std(ddof=1) < 1.8, metric
    before = path.read_bytes()
    coverage_of_differences.simulate(5, 60, [cell], path)  # nothing is left to do
    assert path.read_bytes() == before


def test_holm_by_hand():
    np.testing.assert_allclose(paired.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert paired.holm([]).shape == (0,)


def jackknife(value, stderr):
    """An estimate of ten groups with this error."""
    replicates = np.tile([1.0, -1.0], 5)
    return Jackknife(value, stderr / np.sqrt(9) * replicates)


def test_holm_runs_over_the_pairs_of_one_metric():
    """p of one pair alone decides; the same p among three pairs does not."""
    zero = jackknife(0.0, 0.0)
    two = {"A": {"fid": jackknife(0.0, 1.0)}, "B": {"fid": zero._replace(value=2.5)}}
    assert [row.verdict for row in paired.differences(two, 100)] == ["better"]
    three = two | {"C": {"fid": zero._replace(value=2.5)}}
    rows = {(row.first, row.second): row for row in paired.differences(three, 100)}
    assert rows["A", "B"].verdict == "undecided"
    assert rows["A", "B"].p_value == pytest.approx(
        3 * paired.differences(two, 100)[0].p_value, rel=1e-9
    )
    assert rows["B", "C"].verdict == "undecided"
    assert rows["B", "C"].num_images is None  # a difference of 0 is never decided


def test_planned_number_of_images_by_hand():
    """4 x the images halve a linear error, twice the images a quadratic one."""
    aim = 1.0
    assert paired._deciding_number(aim, Variance(4.0, 0.0), 500) == 2000
    assert paired._deciding_number(aim, Variance(0.0, 4.0), 500) == 1000
    assert paired._deciding_number(aim, Variance(2.0, 2.0), 300) == pytest.approx(820, abs=20)
    assert paired._deciding_number(1e-6, Variance(4.0, 0.0), 500) is None
    assert paired._deciding_number(0.0, Variance(4.0, 0.0), 500) is None


def test_biased_metrics_have_no_verdict():
    """Fewer than 3.5 images a feature."""
    real, near, far = features(0, 0, 60, 20), features(0, 1, 60, 20), features(3, 2, 60, 20)
    result = te.compare_features(real, {"near": near, "far": far}, num_sizes=4)
    verdicts = {row.metric: row for row in result.differences}
    assert verdicts["fid"].verdict == "better"
    assert verdicts["fid_inf"].verdict == "undecided"
    assert verdicts["fid_inf"].num_images is None


def test_wrong_sets_are_refused():
    with pytest.raises(ValueError, match="equal numbers of images"):
        te.compare_features(features(0, 0), {"A": features(0, 1), "B": features(0, 2, 70)})
    with pytest.raises(ValueError, match="columns"):
        te.compare_features(features(0, 0), {"A": features(0, 1), "B": features(0, 2, 80, 5)})


def test_missed_response_is_that_of_the_difference():
    """Responses that both metrics share cancel before their ratio is taken."""
    shared, small = np.ones(31), np.zeros(31)
    small[0] = 1.0
    first = HalfSamples(np.zeros(63), measured=shared + small, complete=3 * shared + 2 * small)
    second = HalfSamples(np.zeros(63), measured=shared, complete=3 * shared)
    assert first.minus(second).missed_response() == pytest.approx(2.0)


def test_linear_responses_of_the_fid_agree_with_the_half_samples():
    """In few directions nothing is left out: the measured response is nearly the complete one."""
    pair = FeaturePair(features(0, 0), features(0.5, 1))
    design = summary.make_draws(jax.random.key(0), (), 80, 80).design
    assert len(design.draws) == 1
    responses = summary.standard_errors.linear_responses(fid.influences(pair), design.groups)
    replicates = fid.weighted_distances(pair, design.groups, design.draws[0])
    odd = summary.standard_errors.odd_responses(replicates)
    assert np.corrcoef(responses, odd)[0, 1] > 0.95
