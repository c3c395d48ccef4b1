"""The comparison of variants: does another gradient or quadrature improve small p?"""

import numpy as np
import pandas as pd
import pytest
from study_builders import NETWORK, cell_frame, thermodynamic_settings, vanilla_settings

from study.claims import decide
from study.figures import metric
from study.readings import final

KID = f"{NETWORK}_kid_inf"
LEVELS = {0.1: 0.08, 1.0: 0.06, 3.0: 0.04, 6.0: 0.04}


def variant(shift_below, shift_above=0.0, seed=0, **changes):
    """A variant whose KID is shifted from the published form's, below and above p = 1."""
    parts = []
    for power, kid in LEVELS.items():
        shift = shift_below if power <= 1.0 else shift_above
        settings = thermodynamic_settings(power, **changes)
        parts.append(cell_frame(settings, 0.3 + power, kid + shift, seed=seed, spread=0.01))
    return pd.concat(parts)


def compared(*variants):
    frame = pd.concat([cell_frame(vanilla_settings(75.0), 0.5, 0.03), *variants])
    table = decide(final(frame.reset_index(drop=True)), {"KID": KID})
    return table[table["variant"] == "TI, compared"]


def test_a_variant_that_improves_only_small_p():
    published = variant(0.0, prior_gradient="none")
    table = compared(published, variant(-0.02, seed=1, prior_gradient="contrastive"))
    better, gap = table.itertuples(index=False)
    assert "better KID with prior gradient contrastive" in better.claim
    assert better.effect == pytest.approx(-0.02, abs=0.002)
    assert gap.effect == pytest.approx(-0.02, abs=0.002)
    assert (better.verdict, gap.verdict) == ("supported", "supported")


def test_a_variant_that_is_better_everywhere_does_not_narrow_the_gap():
    published = variant(0.0, prior_gradient="none")
    both = variant(-0.02, -0.02, seed=1, prior_gradient="none", quadrature="right")
    better, gap = compared(published, both).itertuples(index=False)
    assert better.verdict == "supported"
    assert gap.verdict != "supported"
    assert gap.effect == pytest.approx(0.0, abs=0.002)
    assert "p 0.1, 1, 3, 6" in gap.comparison


def test_only_variants_that_differ_in_gradients_and_quadrature_are_compared():
    published = variant(0.0, prior_gradient="none")
    other = variant(-0.02, seed=1, prior_gradient="contrastive", num_temperatures=30.0)
    assert compared(published, other).empty
    assert compared(variant(0.0), variant(0.0, quadrature="right")).empty  # no published form


def test_a_line_for_each_variant():
    parts = [variant(0.0, prior_gradient="none"), variant(-0.02, prior_gradient="contrastive")]
    frame = pd.concat([cell_frame(vanilla_settings(75.0), 0.5, 0.03), *parts])
    figure = metric.metric_by_power(frame.reset_index(drop=True), KID)
    (axis,) = figure.axes
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {
        *("prior gradient none", "prior gradient contrastive", "vanilla, batch = 75"),
    }
    means = [c[0].get_ydata() for c in axis.containers]
    np.testing.assert_allclose(sorted(m[0] for m in means), [0.06, 0.08], rtol=0.03)
