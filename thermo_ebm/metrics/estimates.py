"""What a metric's value and error are computed from, kept so that two metrics can be subtracted.

Two sets of generated images are compared with the *same* real images, subsets and groups. The
error of the difference is computed from the difference of what the errors of both metrics are
computed from: replicates are subtracted one by one (half-samples, jackknife), kernel sums as in
`kid.difference`. What both metrics owe to the real images then cancels as it does in the
difference itself. Images of the two sets at the same position belong to the same group, so that
sets drawn with common random numbers are compared as pairs.
"""

from typing import NamedTuple

import numpy as np

from thermo_ebm.metrics import kid, standard_errors
from thermo_ebm.metrics.kid import PairKernels
from thermo_ebm.metrics.standard_errors import NUM_GROUPS, Variance


class HalfSamples(NamedTuple):
    """A metric under the weightings of balanced half-samples; see `standard_errors`."""

    replicates: np.ndarray  # [63]
    # The linear responses of the metric of all images, [31]: computed as the replicates are, and in
    # full. Their ratio corrects the error for what the replicates leave out; None if nothing.
    measured: np.ndarray | None = None
    complete: np.ndarray | None = None

    @property
    def value(self) -> float:
        """The metric."""
        return float(self.replicates[0])

    @property
    def degrees_of_freedom(self) -> float:
        """Of the error."""
        return NUM_GROUPS - 1

    def variance(self) -> Variance:
        """The variance of the metric."""
        linear, quadratic = standard_errors.half_sample_variance(self.replicates)
        factor = self.missed_response() ** 2
        return Variance(factor * linear, factor * quadratic)

    def missed_response(self) -> float:
        """The size of the complete response over that of the measured one, at least 1."""
        if self.measured is None or self.complete is None:
            return 1.0
        measured = float(np.mean(self.measured**2))
        return max(1.0, float(np.sqrt(np.mean(self.complete**2) / measured))) if measured else 1.0

    def minus(self, other: "HalfSamples") -> "HalfSamples":
        """The difference to the metric of another set with the same real images and groups."""
        return HalfSamples(
            self.replicates - other.replicates,
            _difference(self.measured, other.measured),
            _difference(self.complete, other.complete),
        )


def _difference(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    return None if first is None or second is None else first - second


class Jackknife(NamedTuple):
    """A metric and its values without each of the groups."""

    value: float
    replicates: np.ndarray  # [num_groups]

    @property
    def degrees_of_freedom(self) -> float:
        """Of the error."""
        return len(self.replicates) - 1

    def variance(self) -> Variance:
        """The variance of the metric."""
        return Variance(standard_errors.jackknife_stderr(self.replicates) ** 2, 0.0)

    def minus(self, other: "Jackknife") -> "Jackknife":
        """The difference to the metric of another set with the same real images and groups."""
        return Jackknife(self.value - other.value, self.replicates - other.replicates)


class KernelMean(NamedTuple):
    """A weighted mean of the kernel distances of subsets, or the difference of two such means."""

    weights: np.ndarray  # [num_subsets]
    sums: PairKernels
    subtracted: PairKernels | None = None
    scale: float = 1.0
    is_biased: bool = False  # the value with the pairs of each image and itself, see `kid.biased`

    @property
    def value(self) -> float:
        """The mean."""
        values = self._distances().values
        if self.is_biased:
            values = kid.biased(self.sums)
            values = values if self.subtracted is None else values - kid.biased(self.subtracted)
        return float(self.scale * (self.weights @ values))

    @property
    def degrees_of_freedom(self) -> float:
        """Of the error."""
        return np.inf

    def variance(self) -> Variance:
        """The variance of the mean."""
        _, *parts = self._distances()
        linear, quadratic = (self.scale**2 * (self.weights @ part @ self.weights) for part in parts)
        return Variance(float(linear), float(quadratic))

    def minus(self, other: "KernelMean") -> "KernelMean":
        """The difference to the mean of another set with the same real images and subsets."""
        return self._replace(subtracted=other.sums)

    def _distances(self) -> kid.KernelDistances:
        if self.subtracted is None:
            return kid.distances(self.sums)
        return kid.difference(self.sums, self.subtracted)


Estimate = HalfSamples | Jackknife | KernelMean
