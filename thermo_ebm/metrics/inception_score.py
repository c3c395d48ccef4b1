"""Inception Score (Salimans et al. 2016): exp of the mean KL(p(y|x), p(y)) over images."""

import numpy as np
import scipy.special

from thermo_ebm.metrics import checks


def inception_score(logits: checks.Array) -> float:
    """Returns the Inception Score of a classifier's logits, over all images at once.

    It knows nothing of real images, and means what the literature means only with InceptionV3's
    logits (without bias). With C classes it lies between 1 and C.

    Args:
      logits: [num_images, num_classes].

    Raises:
      ValueError: for another rank, fewer than two images, values not finite.
    """
    log_probabilities = scipy.special.log_softmax(checks.feature_matrix("logits", logits), axis=1)
    probabilities = np.exp(log_probabilities)
    marginal = probabilities.mean(axis=0)
    # p log p is 0 at p = 0, where the logarithm is not.
    negative_entropy = np.where(probabilities > 0, probabilities * log_probabilities, 0.0)
    mean_kl = negative_entropy.sum(axis=1).mean() - scipy.special.xlogy(marginal, marginal).sum()
    return float(np.exp(mean_kl))
