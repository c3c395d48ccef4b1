"""The benchmark of log p(x): a case that is easy, and a trap that must be refused."""

import numpy as np
import pytest

from benchmarks.likelihood import CASES, measure


@pytest.mark.slow
@pytest.mark.parametrize(("name", "is_trap"), [("linear_0.03", False), ("few_temperatures", True)])
def test_errors_and_verdicts(name, is_trap):
    result = measure(CASES[name](8), 0)
    reliable = result.image_reliable & result.model_verdict.reliable
    error = np.abs(result.error)
    assert not (reliable & (error > 1)).any()
    if is_trap:
        assert error.max() > 1
        assert not reliable.all()
    else:
        assert error.max() < 0.3
        assert reliable.all()
