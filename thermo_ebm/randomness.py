"""Random numbers: the tree of keys, with every number that is folded into a key of a run.

A key is only ever folded or split, so that each draw depends on its place in this tree and on
nothing else: not on the number of devices, nor on chunks, nor on what has been drawn before.

    seed + repetition                                   the key of a repetition
    |-- INIT                                            the first parameters
    |   `-- ENCODER                                     those of an encoder
    |-- ORDER - branch - epoch                          the order of the training images
    |-- CHAINS - branch - step                          the chains of a training step  (*)
    |-- VALIDATION - step - batch                       the chains of the validation loss  (*)
    |-- GRADIENT_NOISE - step                           batches and chains of the crossed design
    |-- GRADIENT_BIAS - step - batch                    chains, and their continuations  (*)
    |-- PICTURES                                        samples and one latent, for pictures
    |-- EVALUATION - step                               generated images  (*), and metrics
    |-- AMPLIFICATION - branch - step                   the sign of the amplified difference
    |-- FLIPS - branch - step - number of an image      whether the step has its mirror image
    |-- NOISE_FLIPS - step - block - batch - number     the same, of the crossed design
    `-- LIKELIHOOD - step                               annealed chains of validation images  (*)

    seed of `launch.likelihood`
    |-- VALIDATION_IMAGES - pilot, estimate, bounds - number of an image's values   its chains
    `-- SIMULATION - number of an image               the noise of simulated images

    (*) the key of many chains
    |-- temperature - position                          the first chain of each image
    |-- PAIR_NOISE, PROBE - position                    noise of simulated pairs, probes
    `-- CHAIN + m - temperature - position              chain m = 1 .. M - 1 of each image
        |-- STEP_NOISE + k                              normal: z_0 (k = 0), then step k = 1 .. K
        |-- STEP_JITTER + k                             uniform: the length of a step of `hmc`
        |-- STEP_ACCEPT + k                             uniform: the Metropolis test of step k
        `-- STEP_EXCHANGE + k                           uniform: the exchange after step k

`branch` is the number of rollbacks so far, `position` the position of an image in the complete
batch. Numbers beside each other must differ: temperatures, positions and steps stay far below
`CHAIN` and `STEP_ACCEPT`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.types import Array, PRNGKey

# Folded into the key of a repetition, one number for each use.
(
    INIT,
    ORDER,
    CHAINS,
    VALIDATION,
    GRADIENT_NOISE,
    PICTURES,
    EVALUATION,
    AMPLIFICATION,
    LIKELIHOOD,
    GRADIENT_BIAS,
    FLIPS,
    NOISE_FLIPS,
) = range(12)

# Folded into the key of the first parameters, whose split gives the prior's and the generator's.
ENCODER = 2

# Folded into the key of `launch.likelihood`.
VALIDATION_IMAGES, SIMULATION = range(2)

# Folded into the key of many chains for an image's second and further chains.
CHAIN = 2**31 - 2**16

# Folded into the key of many chains, for what a step learns of the path of its chains.
PAIR_NOISE, PROBE = 2**31 - 2**17, 2**31 - 2**17 + 1

# Folded into the key of a chain; the number of the step is added.
STEP_NOISE, STEP_JITTER, STEP_ACCEPT, STEP_EXCHANGE = 0, 2**29, 2**30, 2**30 + 2**29


class StepKeys(NamedTuple):
    """The random numbers of one step of many chains."""

    keys: PRNGKey  # of the chains, [num]
    step: Array  # k = 1 .. K, a scalar

    def noise(self, dim: int) -> Array:
        """Standard normal numbers [num, dim]."""
        return normal(self.keys, STEP_NOISE + self.step, dim)

    def uniform(self) -> Array:
        """Uniform numbers in (0, 1), for the length of a step, [num]."""
        return jnp.exp(log_uniform(self.keys, STEP_JITTER + self.step))

    def log_uniform(self) -> Array:
        """Logarithms of uniform numbers, for a Metropolis test, [num]."""
        return log_uniform(self.keys, STEP_ACCEPT + self.step)


def normal(keys: PRNGKey, number: int | Array, dim: int) -> Array:
    """Standard normal numbers, one row [dim] from each key [num] folded with `number`."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), (dim,)))(keys)


def uniform(keys: PRNGKey, number: int | Array, dim: int) -> Array:
    """Uniform numbers in (0, 1), one row [dim] from each key [num] folded with `number`."""

    def draw(key: PRNGKey) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, number), (dim,), minval=1e-7)

    return jax.vmap(draw)(keys)


def log_uniform(keys: PRNGKey, number: int | Array) -> Array:
    """Logarithms of uniform numbers in (0, 1), one from each key [num] folded with `number`."""
    draws = jax.vmap(lambda key: jax.random.exponential(jax.random.fold_in(key, number)))(keys)
    return -draws


def chain_keys(key: PRNGKey, temperature_index: Array | int, positions: Array) -> PRNGKey:
    """A key for the first chain of each image at one temperature: scalar and [num] -> [num]."""
    key = jax.random.fold_in(key, temperature_index)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def all_chain_keys(
    key: PRNGKey, temperature_indices: Array, positions: Array, chains_per_image: int
) -> PRNGKey:
    """A key for every chain: [num_temperatures], [num] -> [num_temperatures, M, num].

    The first chain of an image has the same key whatever M is.
    """
    further = [jax.random.fold_in(key, CHAIN + m) for m in range(1, chains_per_image)]
    over_chains = jax.vmap(chain_keys, in_axes=(0, None, None))
    over_temperatures = jax.vmap(over_chains, in_axes=(None, 0, None))
    return over_temperatures(jnp.stack([key, *further]), temperature_indices, positions)
