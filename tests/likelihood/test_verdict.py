"""The verdict on estimates of log p(x): which flaw it names, and what it says to do."""

import jax.numpy as jnp
import numpy as np
import pytest

from thermo_ebm.likelihood import LikelihoodSettings, verdict
from thermo_ebm.likelihood.annealed_smc import Estimates, Scores
from thermo_ebm.likelihood.proposal import PriorConstant

SETTINGS, NUM = LikelihoodSettings(), 4
GRADIENTS = np.full(NUM, 400)


def estimates(**last):
    """Four good images, the last of which has other figures."""
    good = {
        "log_marginal_likelihood": -10.0,
        "stderr": 0.1,
        "island_spread": 0.3,
        "effective_sample_size": 12.0,
        "acceptance": 0.8,
        "prior_sampling": -40.0,
    }
    columns = {name: np.full(NUM, value) for name, value in good.items()}
    for name, value in last.items():
        columns[name][-1] = value
    return Estimates(**columns, scores=Scores(*3 * [np.zeros(NUM)]))


def test_good_images_are_reliable():
    assert verdict.are_reliable(estimates(), SETTINGS).all()
    judged = verdict.of_images(estimates(), GRADIENTS, SETTINGS)
    assert judged.sentence() == "reliable: yes"


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        ({"effective_sample_size": 1.3}, "smallest effective sample size 1.3"),
        ({"island_spread": 4.0}, "islands disagree by 4.0 nats"),
        ({"stderr": 0.5}, "standard error up to 0.50 nats"),
        ({"prior_sampling": -7.0}, "3.0 nats below what draws of the prior give"),
        ({"log_marginal_likelihood": np.nan}, "not a finite number"),
    ],
)
def test_flaws_of_images_are_named_with_a_remedy(flaw, reason):
    wrong = estimates(**flaw)
    np.testing.assert_array_equal(verdict.are_reliable(wrong, SETTINGS), [True, True, True, False])
    sentence = verdict.of_images(wrong, GRADIENTS, SETTINGS).sentence()
    assert sentence.startswith("reliable: no; 1 of 4 images; ")
    assert reason in sentence
    assert sentence.endswith("repeat with --error=0.05 --max_gradients=1600")


def test_larger_errors_that_were_asked_for_are_no_flaw():
    wrong = estimates(stderr=0.9, island_spread=2.0)
    assert not verdict.are_reliable(wrong, SETTINGS).all()
    assert verdict.are_reliable(wrong, SETTINGS._replace(error=0.5)).all()


def test_the_priors_chains():
    constant = PriorConstant(*map(jnp.float32, (0.0, 0.01, 1500.0, 1.01)))
    assert verdict.of_prior(constant, 2048).sentence() == "reliable: yes"
    # Where chains do not mix, annealed chains are enough if most are effective and they agree.
    wells = verdict.of_prior(constant._replace(r_hat=jnp.float32(8.1)), 2048)
    assert wells.reliable
    assert wells.sentence().startswith("reliable: yes; chains of the prior do not mix (R-hat 8.10")
    for change, reason in (
        ({"r_hat": 1.2, "stderr": 0.15}, "chains of the prior do not mix (R-hat 1.20 in the worst"),
        (
            {"r_hat": 1.2, "effective_sample_size": 300.0},
            "rests on 300 of 2048 chains of",
        ),
        ({"r_hat": jnp.nan}, "chains of the prior are not finite"),
        ({"effective_sample_size": 12.0}, "log Z_alpha rests on 12 of 2048 chains"),
        ({"stderr": 0.5}, "standard error of log Z_alpha 0.50 nats"),
    ):
        wrong = constant._replace(**{name: jnp.float32(value) for name, value in change.items()})
        assert reason in verdict.of_prior(wrong, 2048).sentence()
        assert not verdict.is_reliable_prior(wrong, 2048)


def test_bounds_of_simulated_images():
    rng = np.random.default_rng(0)
    lower, error = rng.normal(-30, 5, size=20), np.full(20, 0.15)
    noise = 0.15 * rng.normal(size=20)
    assert verdict.of_bounds(lower, lower + 0.1 + noise, error).reliable
    apart = verdict.of_bounds(lower, lower + 2.0 + noise, error)
    assert "bounds of simulated images are 2.0 nats apart" in apart.sentence()
    single = noise.copy()
    single[3] = 6.0
    missed = verdict.of_bounds(lower, lower + single, error).sentence()
    assert "the bounds of 1 of 20 simulated images are more than 1.5 nats apart" in missed


def test_one_wrong_verdict_decides():
    good, bad = verdict.Verdict(True), verdict.Verdict(False, ("a", "b"), "repeat")
    assert verdict.together([good, good]).reliable
    assert verdict.together([good, bad, bad]).sentence() == "reliable: no; a; b; a; b; repeat"
