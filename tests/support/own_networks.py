"""Networks of every kind that a factory may return, and factories that are wrong."""

import haiku as hk
import jax
import jax.numpy as jnp

import thermo_ebm as te


def pixels(values):
    return values.reshape(-1, 8, 8, 1)


class WithMethods:
    """The methods of a module of Flax, whose parameters are nested dicts below "params"."""

    def init(self, key, z):
        return {"params": {"Dense_0": {"kernel": jax.random.normal(key, (z.shape[1], 64)) / 4}}}

    def apply(self, variables, z):
        return pixels(z @ variables["params"]["Dense_0"]["kernel"])


def plain(config):
    def init(key, z):
        return [jax.random.normal(key, (z.shape[1], 64)) / 4]

    return te.Networks(generator=(init, lambda weights, z: pixels(z @ weights[0])))


def of_haiku(config):
    def tilt(z):
        return hk.nets.MLP((6, 1), activation=jax.nn.gelu)(z)[:, 0]

    return te.Networks(
        prior=hk.transform(tilt),
        generator=hk.without_apply_rng(hk.transform(lambda z: pixels(hk.Linear(64)(z)))),
    )


def of_flax(config):
    del config
    return te.Networks(generator=WithMethods())


def fails(config):
    raise ZeroDivisionError("no networks")


def of_another_size(config):
    return te.Networks(generator=(lambda key, z: (), lambda params, z: jnp.zeros((len(z), 9))))


def of_integers(config):
    return te.Networks(prior=(lambda key, z: jnp.arange(3), lambda params, z: z[:, 0]))


def cannot_be_applied(config):
    return te.Networks(prior=(lambda key, z: (), lambda params, z: z @ z))


def with_an_encoder(config):
    return te.Networks(encoder=WithMethods())


def of_another_code(config):
    return te.Networks(encoder=(lambda key, x: (), lambda params, x: jnp.zeros((len(x), 9))))


def of_nothing(config):
    return te.Networks(generator=3)


def a_pair(config):
    return WithMethods(), WithMethods()
