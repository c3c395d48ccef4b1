"""Optimisers that take two gradients: one for the first moment, one for the second.

Adam divides the mean gradient by the root of the mean squared gradient, which contains the noise:
with c times the noise in both moments the parameters move less far, so that a comparison of noise
would be one of step sizes too. Here the first moment is taken of the gradient with its set noise
and the second of the gradient before amplification:

    m <- b1 m + (1 - b1) g',    v <- b2 v + (1 - b2) g^2,    g' = g + sqrt(c - 1) xi d.

`second_moment` decides which gradient enters which moment (`choose_gradients`). Where both are the
same, the optimisers are those of optax, bit for bit.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from thermo_ebm import plugins
from thermo_ebm.errors import UserError, first_line
from thermo_ebm.gradients.halves import square
from thermo_ebm.types import Array, Params, PyTree

EPSILON = 1e-8  # of optax.adam
SECOND_MOMENTS = ("plain", "amplified", "alone")

OptimiserState = dict[str, PyTree]  # of optax, by parameter group


class OptimiserSettings(NamedTuple):
    """Settings of an optimiser besides its learning rate."""

    b1: float  # decay of the first moment, or the momentum
    b2: float  # decay of the second moment
    weight_decay: float = 0.0


class Direction(NamedTuple):
    """An optimiser before its learning rate, by which the updates are multiplied."""

    # `update(gradient, state, params, second=...)`, with the gradient of the second moment.
    transformation: optax.GradientTransformation
    # b of a linear momentum: the update is linear in the gradients of the first moment, and the
    # gradient of k steps ago has b^k of the weight of the newest. None where this does not hold.
    momentum: float | None
    takes_second: bool = True


class Optimiser(NamedTuple):
    """The optimiser of one group of parameters."""

    transformation: optax.GradientTransformationExtraArgs
    learning_rate: optax.Schedule
    momentum: float | None  # as in `Direction`


class NoisyGradient(NamedTuple):
    """A gradient by parameter group, and what is known of its noise."""

    gradient: Params
    noise: Params | None = None  # half the difference of the batch's halves, scaled; None: unknown


def choose_gradients(
    second_moment: str, plain: NoisyGradient, amplified: NoisyGradient
) -> tuple[NoisyGradient, NoisyGradient]:
    """The gradients of the first and of the second moment.

    Args:
      second_moment: `plain`: noise at an unchanged step size; `amplified`: in both moments, as Adam
        is published; `alone`: in the second moment alone, which shortens the steps as much, without
        the noise (to tell the two apart).
      plain: g and d.
      amplified: g' and sqrt(c) d.
    """
    if second_moment == "alone":
        return plain, _expected_square(plain, amplified)
    return amplified, plain if second_moment == "plain" else amplified


def _expected_square(plain: NoisyGradient, amplified: NoisyGradient) -> NoisyGradient:
    """A gradient whose square is the mean of g'^2 over xi, g^2 + (c - 1) d^2.

    The square of one g' can be far below that of g, and the first steps then very long.
    """
    if plain.noise is None or amplified.noise is None:
        return amplified

    added = jax.tree.map(lambda a, d: jnp.maximum(a**2 - d**2, 0.0), amplified.noise, plain.noise)

    def root(gradient: PyTree) -> PyTree:
        return jax.tree.map(lambda g, square: jnp.sqrt(g**2 + square), gradient, added)

    higher, lower = (root(_shifted(plain.gradient, plain.noise, sign)) for sign in (1, -1))
    noise = jax.tree.map(lambda a, b: (a - b) / 2, higher, lower)
    return NoisyGradient(root(plain.gradient), noise)


class Displacement(NamedTuple):
    """How far one update moves the parameters of a group, and how much of this is noise."""

    norm: Array  # |theta|^2 before the update, a scalar
    mean: Array  # |E u|^2 of the update u, unbiased: small ones can have negative estimates
    noise: Array  # E |u - E u|^2


def scale_by_adam(b1: float, b2: float) -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_adam` with the second moment of another gradient, `second`."""

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, second: PyTree
    ) -> tuple[PyTree, Any]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(second, state.nu, b2, 2)
        count = optax.safe_increment(state.count)
        mean = optax.tree.bias_correction(mu, b1, count)
        variance = optax.tree.bias_correction(nu, b2, count)
        scaled = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + EPSILON), mean, variance)
        return scaled, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformationExtraArgs(optax.scale_by_adam(b1, b2).init, update)


def adam(settings: OptimiserSettings) -> Direction:
    """`optax.adam`."""
    return Direction(scale_by_adam(settings.b1, settings.b2), settings.b1)


def adamw(settings: OptimiserSettings) -> Direction:
    """`optax.adamw`."""
    decay = optax.add_decayed_weights(settings.weight_decay)
    return Direction(optax.chain(scale_by_adam(settings.b1, settings.b2), decay), settings.b1)


def rmsprop(settings: OptimiserSettings) -> Direction:
    """`optax.rmsprop` with `bias_correction=True` and `eps_in_sqrt=False`; b1 is its momentum."""
    scaled = scale_by_adam(0.0, settings.b2)
    return Direction(optax.chain(scaled, optax.trace(settings.b1)), settings.b1)


def sgd(settings: OptimiserSettings) -> Direction:
    """`optax.sgd`; b1 is its momentum. It has no second moment, so that noise never changes it."""
    return Direction(optax.trace(settings.b1), settings.b1)


DIRECTIONS: dict[str, Callable[[OptimiserSettings], Direction]] = {
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "sgd": sgd,
}


def find_direction(name: str, settings: OptimiserSettings) -> Direction:
    """The optimiser that `optimizer.name` asks for.

    Args:
      name: one of `DIRECTIONS`, another optimiser of optax (`lion`), or MODULE:FUNCTION, a function
        of `OptimiserSettings` that returns a `Direction`.
      settings: of the optimiser. An optimiser of optax gets those whose names it knows.

    Raises:
      UserError: there is no such optimiser, or it needs more than a learning rate.
    """
    if name in DIRECTIONS:
        return DIRECTIONS[name](settings)
    form = (
        f"must be {', '.join(DIRECTIONS)}, an optimiser of optax such as lion, or MODULE:FUNCTION"
    )
    if ":" in name:
        return plugins.load("optimizer.name", name, "function", form)[1](settings)
    make = getattr(optax, name, None)
    if not inspect.isfunction(make) or "learning_rate" not in inspect.signature(make).parameters:
        raise UserError(f"optimizer.name={name}: {form}")
    values = {**settings._asdict(), "momentum": settings.b1}
    arguments = {key: values[key] for key in inspect.signature(make).parameters if key in values}
    try:
        transformation = optax.chain(make(learning_rate=1.0, **arguments), optax.scale(-1.0))
        weights = {"w": jnp.ones(2)}
        jax.eval_shape(
            lambda: transformation.update(weights, transformation.init(weights), weights)
        )
    except Exception as error:  # optax raises many kinds
        raise UserError(f"optimizer.name={name}: cannot be used ({first_line(error)})") from error
    return Direction(transformation, momentum=None, takes_second=False)


def make_optimiser(direction: Direction, learning_rate: optax.Schedule) -> Optimiser:
    """Multiplies the direction by the learning rate, and subtracts it."""
    steps = optax.chain(direction.transformation, optax.scale_by_learning_rate(learning_rate))
    return Optimiser(steps, learning_rate, direction.momentum)


def init_optimisers(optimisers: Mapping[str, Optimiser], params: Params) -> OptimiserState:
    """The states of all optimisers before the first step."""
    return {name: optimisers[name].transformation.init(params[name]) for name in params}


def update(
    optimisers: Mapping[str, Optimiser],
    moments: tuple[NoisyGradient, NoisyGradient],
    state: OptimiserState,
    params: Params,
) -> tuple[Params, OptimiserState, dict[str, Displacement]]:
    """One step of all optimisers.

    Args:
      optimisers: by parameter group.
      moments: the gradients of the first and of the second moment.
      state: of the optimisers.
      params: before the step.

    Returns:
      The new parameters, the new state, and the displacement of each group whose noise is known.
    """
    new_params, new_state, displacements = {}, {}, {}
    for name, optimiser in optimisers.items():

        def step(sign: int, name: str = name) -> tuple[PyTree, PyTree]:
            """Updates and state, of the complete batch (0) or of one of its halves (+1, -1)."""
            first, second = (
                _shifted(gradient[name], None if noise is None else noise[name], sign)
                for gradient, noise in moments
            )
            update = optimisers[name].transformation.update
            return update(first, state[name], params[name], second=second)

        updates, new_state[name] = step(0)
        if moments[0].noise is not None and optimiser.momentum is not None:
            halves = jax.tree.map(lambda a, b: (a - b) / 2, step(1)[0], step(-1)[0])
            # The noise of former gradients in the momentum: that of this one, by a geometric sum.
            count = num_updates(new_state[name])
            weights = (1 - optimiser.momentum ** (2.0 * count)) / (1 - optimiser.momentum**2)
            noise = weights * square(halves)
            norm = square(params[name])
            displacements[name] = Displacement(norm, square(updates) - noise, noise)
        new_params[name] = optax.apply_updates(params[name], updates)
    return new_params, new_state, displacements


def _shifted(gradient: PyTree, noise: PyTree | None, sign: int) -> PyTree:
    """The gradient of the complete batch (sign 0), or of one of its halves (+1, -1)."""
    if sign == 0 or noise is None:
        return gradient
    return jax.tree.map(lambda g, d: g + sign * d, gradient, noise)


def num_updates(state: PyTree) -> Array:
    """Number of updates of one group; skipped steps do not count."""
    return state[-1].count  # of the learning rate, which comes last
