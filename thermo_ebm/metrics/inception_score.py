"""Inception Score (Salimans et al. 2016): exp of the mean KL(p(y|x), p(y)) over images."""

from typing import NamedTuple

import numpy as np
import scipy.special

from thermo_ebm.metrics import arrays, standard_errors


class ScoreTerms(NamedTuple):
    """What each image adds to the score."""

    probabilities: np.ndarray  # [num_images, num_classes], p(y|x)
    negative_entropies: np.ndarray  # [num_images], sum_y p(y|x) log p(y|x)


def inception_score(logits: arrays.Array) -> float:
    """Returns the Inception Score of a classifier's logits, over all images at once.

    The score does not depend on real images, and means what the literature means only with
    InceptionV3's logits (without bias). With C classes it lies between 1 and C.

    Args:
      logits: [num_images, num_classes].

    Raises:
      ValueError: for another rank, fewer than two images, values not finite.
    """
    terms = score_terms(logits)
    marginal = terms.probabilities.mean(axis=0)
    return float(np.exp(terms.negative_entropies.mean() - _negative_entropy(marginal)))


def score_terms(logits: arrays.Array) -> ScoreTerms:
    """Returns what each image adds to the score.

    Raises:
      ValueError: as `inception_score`.
    """
    log_probabilities = scipy.special.log_softmax(arrays.feature_matrix("logits", logits), axis=1)
    probabilities = np.exp(log_probabilities)
    # p log p is 0 at p = 0, where the logarithm is not finite.
    products = np.where(probabilities > 0, probabilities * log_probabilities, 0.0)
    return ScoreTerms(probabilities, products.sum(axis=1))


def weighted_scores(terms: ScoreTerms, groups: np.ndarray, subset: np.ndarray) -> np.ndarray:
    """Returns the score of a subset under each weighting of the half-samples, [63].

    Args:
      terms: of all images.
      groups: the half-sample group of each image, int [num_images]; see `standard_errors`.
      subset: indices of images.
    """
    groups, probabilities = groups[subset], terms.probabilities[subset]
    sums = np.stack(
        [probabilities[groups == group].sum(axis=0) for group in range(standard_errors.NUM_GROUPS)]
    )
    weights = standard_errors.WEIGHTS
    marginal = weights @ sums / (weights @ standard_errors.group_sizes(groups))[:, None]
    mean = standard_errors.weighted_means(terms.negative_entropies[subset], groups)
    return np.exp(mean - _negative_entropy(marginal))


def _negative_entropy(marginal: np.ndarray) -> np.ndarray:
    """Returns sum_c p_c log p_c over the last axis of mean probabilities [..., num_classes]."""
    return np.asarray(scipy.special.xlogy(marginal, marginal).sum(axis=-1))
