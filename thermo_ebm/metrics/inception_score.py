"""Inception Score (Salimans et al. 2016): exp of the mean KL(p(y|x), p(y)) over images."""

from typing import NamedTuple

import numpy as np
import scipy.special

from thermo_ebm.metrics import checks


class Terms(NamedTuple):
    """What each image adds to the score."""

    probabilities: np.ndarray  # [num_images, num_classes], p(y|x)
    negative_entropies: np.ndarray  # [num_images], sum_y p(y|x) log p(y|x)


def inception_score(logits: checks.Array) -> float:
    """Returns the Inception Score of a classifier's logits, over all images at once.

    It knows nothing of real images, and means what the literature means only with InceptionV3's
    logits (without bias). With C classes it lies between 1 and C.

    Args:
      logits: [num_images, num_classes].

    Raises:
      ValueError: for another rank, fewer than two images, values not finite.
    """
    parts = terms(logits)
    marginal = parts.probabilities.mean(axis=0)
    return float(np.exp(parts.negative_entropies.mean() - marginal_negative_entropy(marginal)))


def terms(logits: checks.Array) -> Terms:
    """Returns what each image adds to the score.

    Raises:
      ValueError: as `inception_score`.
    """
    log_probabilities = scipy.special.log_softmax(checks.feature_matrix("logits", logits), axis=1)
    probabilities = np.exp(log_probabilities)
    # p log p is 0 at p = 0, where the logarithm is not.
    products = np.where(probabilities > 0, probabilities * log_probabilities, 0.0)
    return Terms(probabilities, products.sum(axis=1))


def marginal_negative_entropy(marginal: np.ndarray) -> np.ndarray:
    """Returns sum_c p_c log p_c over the last axis of mean probabilities [..., num_classes]."""
    return np.asarray(scipy.special.xlogy(marginal, marginal).sum(axis=-1))
