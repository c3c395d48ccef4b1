"""How far the moments of a sample are from a Gaussian's, in standard errors."""

import numpy as np


def standard_errors_off(z, law):
    """The largest distance of sample moments from a Gaussian's, in standard errors."""
    num, variance = len(z), np.diag(law.cov)
    mean = np.abs(z.mean(0) - law.mean) / np.sqrt(variance / num)
    of_cov = np.sqrt((np.outer(variance, variance) + law.cov**2) / num)
    return max(mean.max(), (np.abs(np.cov(z.T) - law.cov) / of_cov).max())
