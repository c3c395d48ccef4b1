"""Settings of the estimates of log p(x)."""

from typing import NamedTuple

from thermo_ebm.sampling.kernels import Kernel, find_kernel


class LikelihoodSettings(NamedTuple):
    """Settings of the estimator of log p(x).

    With `num_temperatures = 0` each image has as many temperatures as the error asked for needs.
    """

    error: float = 0.1  # nats, the standard error asked for of each image
    max_gradients: int = 20_000  # of a chain, see `gradients_per_temperature`
    max_seconds: float = 0.0  # after which no estimate is repeated with more temperatures; 0: never
    num_temperatures: int = 0  # N, the same for all images; 0: by need
    chains_per_image: int = 16  # M
    num_islands: int = 4  # of which M is a multiple
    kernel: str = "hmc"  # a name in kernels.KERNELS, of an adjusted kernel
    num_trajectories: int = 1  # moves at each temperature
    num_leapfrog: int = 4  # L, of a kernel with leapfrog steps
    pilot_chains: int = 16  # of the run that chooses schedule and step sizes
    pilot_temperatures: int = 96  # at most
    batch_size: int = 8  # images at once
    num_pairs: int = 8192  # simulated, for the proposal
    num_probes: int = 2048  # for the metric
    prior_chains: int = 2048  # for log Z_alpha; a multiple of 16
    prior_temperatures: int = 75
    prior_trajectories: int = 10  # of chains of p_alpha before each of their draws

    def check(self) -> None:
        """Refuses numbers that give no estimate or no error.

        Raises:
          ValueError: naming them, or an unknown kernel or one without a Metropolis test.
        """
        if self.num_islands < 2 or self.chains_per_image % self.num_islands:
            raise ValueError(
                f"chains_per_image is {self.chains_per_image}, must be a multiple of the "
                f"num_islands, {self.num_islands}, which are at least 2"
            )
        if not find_kernel(self.kernel).adjusted:
            raise ValueError(
                f"kernel is {self.kernel!r}, must have a Metropolis test: estimates rest on moves "
                "that leave the density invariant"
            )
        if not self.error > 0:
            raise ValueError(f"error is {self.error}, must be positive")
        for name in ("max_gradients", "num_trajectories", "num_leapfrog", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")

    def moves(self) -> Kernel:
        """The kernel of the chains."""
        return find_kernel(self.kernel, self.num_leapfrog)

    def gradients_per_temperature(self) -> int:
        """Of a chain."""
        has_leapfrog = self.moves().with_leapfrog is not None
        return self.num_trajectories * (self.num_leapfrog if has_leapfrog else 1)

    def compiled(self) -> "LikelihoodSettings":
        """The settings of compiled functions, the same whatever the effort."""
        neutral = LikelihoodSettings()
        names = ("error", "max_gradients", "max_seconds", "num_temperatures", "batch_size")
        return self._replace(**{name: getattr(neutral, name) for name in names})
