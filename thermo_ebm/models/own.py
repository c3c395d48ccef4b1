"""Networks of a user, from a factory that `model.factory` names as MODULE:FACTORY.

The factory takes the complete configuration and returns `Networks`. A network is anything with
`init(key, z) -> parameters` and `apply(parameters, z) -> outputs`, as attributes or as a pair of
functions: of plain JAX, of Haiku (`hk.transform`, with or without `hk.without_apply_rng`) or of
Flax (a module of `flax.linen`). Networks draw no random numbers when they are applied.
"""

import functools
import inspect
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from thermo_ebm import plugins
from thermo_ebm.errors import UserError, reason_of
from thermo_ebm.fields import ENCODER_LOSSES
from thermo_ebm.types import Array, PRNGKey, PyTree

_FIELD = "model.factory"
_FORM = "must be MODULE:FACTORY, a function of the configuration that returns te.Networks"


class Functions(NamedTuple):
    """A network as two pure functions."""

    # of z [num, latent_dim], or of an encoder's x [num, *image_shape]
    init: Callable[[PRNGKey, Array], PyTree]  # (key, z) -> parameters
    apply: Callable[[PyTree, Array], Array]  # (parameters, z) -> outputs


class Networks(NamedTuple):
    """What a factory returns; a network that is None is the configuration's."""

    # f_alpha, the tilt, which is added to the log-density: z [num, latent_dim] -> [num]
    prior: Any = None
    # The values before the likelihood's output, such as before tanh: z -> [num, *image_shape]
    generator: Any = None
    # Of q(z | x), for losses with an encoder: x -> mean and log of sigma, [num, 2 * latent_dim]
    encoder: Any = None


class Source(NamedTuple):
    """Where a run's networks come from."""

    factory: str  # MODULE:FACTORY
    sha256: str  # of the source of MODULE alone, without what it imports


def networks(config: ConfigDict) -> Networks:
    """The networks of the factory, each as `Functions`; equal configurations have the same ones.

    Args:
      config: the complete configuration; all are None if it names no factory.

    Raises:
      UserError: the factory cannot be imported, fails, or returns something else.
    """
    if not config.model.factory:
        return Networks()
    return _networks(config.model.factory, json.dumps(config.to_dict(), sort_keys=True))


def source(config: ConfigDict) -> Source | None:
    """The source of the factory's module; None if the configuration names no factory.

    Raises:
      UserError: it cannot be imported, or its source cannot be read.
    """
    spec = config.model.factory
    if not spec:
        return None
    module, _ = plugins.load(_FIELD, spec, "function", _FORM)
    return Source(spec, plugins.source_digest(_FIELD, spec, module))


def check(config: ConfigDict) -> None:
    """Refuses networks whose parameters or outputs cannot be trained, without computing anything.

    Raises:
      UserError: also where a network cannot be traced.
    """
    built, data = networks(config), config.data
    dim, image = config.model.latent_dim, (2, data.image_size, data.image_size, data.channels)
    z, x = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, dim), image))
    shapes = {
        "prior": ("z", z, (2,)),
        "generator": ("z", z, image),
        "encoder": ("x", x, (2, 2 * dim)),
    }
    for name, (symbol, argument, shape) in shapes.items():
        network, where = getattr(built, name), f"{_FIELD}={config.model.factory}: the {name}"
        if network is None:
            continue
        try:
            params = jax.eval_shape(network.init, jax.random.key(0), argument)
            outputs = jax.eval_shape(network.apply, params, argument)
        except Exception as error:  # a user's function can raise anything
            raise UserError(
                f"{where} cannot be applied to {symbol} {list(argument.shape)} ({reason_of(error)})"
            ) from error
        leaves = [leaf.dtype for leaf in jax.tree.leaves(params)]
        if not all(jnp.issubdtype(dtype, jnp.floating) for dtype in leaves):
            raise UserError(f"{where} has parameters that are not floating-point numbers")
        if getattr(outputs, "shape", None) != shape:
            returned = list(getattr(outputs, "shape", [])) or type(outputs).__name__
            raise UserError(
                f"{where} returns {returned} for {symbol} {list(argument.shape)}, must return "
                f"{list(shape)}"
            )


@functools.lru_cache(maxsize=32)  # so that equal models are one, whose functions are compiled once
def _networks(spec: str, fields: str) -> Networks:
    _, factory = plugins.load(_FIELD, spec, "function", _FORM)
    try:
        returned = factory(ConfigDict(json.loads(fields)))
    except UserError:
        raise
    except Exception as error:  # a user's function can raise anything
        raise UserError(f"{_FIELD}={spec}: the factory failed ({reason_of(error)})") from error
    if not isinstance(returned, Networks):
        raise UserError(f"{_FIELD}={spec}: {_FORM}, not {type(returned).__name__}")
    loss = json.loads(fields)["loss"]["name"]
    if returned.encoder is not None and loss not in ENCODER_LOSSES:
        raise UserError(f"{_FIELD}={spec}: has an encoder, which loss.name={loss} does not take")
    return Networks(*(_functions(spec, network) for network in returned))


def _functions(spec: str, network: Any) -> Functions | None:
    """A network of any kind as two pure functions."""
    if network is None:
        return None
    pair = network if isinstance(network, tuple) else ()
    init = getattr(network, "init", pair[0] if len(pair) == 2 else None)
    apply = getattr(network, "apply", pair[1] if len(pair) == 2 else None)
    if not callable(init) or not callable(apply):
        raise UserError(
            f"{_FIELD}={spec}: a network is a pair of functions, init(key, z) and "
            f"apply(parameters, z), not {type(network).__name__}"
        )
    if "rng" in inspect.signature(apply).parameters:  # of `hk.transform`
        return Functions(init, lambda params, z: apply(params, None, z))
    return Functions(init, apply)
