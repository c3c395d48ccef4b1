"""The price of a gradient's noise: what images and chains add to it, and how long they take.

With the batch size B and M chains per image, drawn without replacement from N images,

    noise = s_b (1 / B - 1 / N) + s_c / (B M),    seconds of a step = c_0 + B (c_b + M c_c).

s_b comes from the choice of images, s_c from the chains (`gradients/noise.py`). For a given noise
the time is least at

    M* = sqrt(s_c c_b / (s_b c_c)),

whatever B is, if c_0 is small. N_t and the steps of the chains change s_c, c_c and the bias, so
that each choice of them is measured by itself.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm.config import checks
from thermo_ebm.cost import plan
from thermo_ebm.errors import UserError
from thermo_ebm.gradients.halves import size as num_entries
from thermo_ebm.gradients.noise import GradientNoise, noise_of
from thermo_ebm.train import programs, start, timing
from thermo_ebm.train.epochs import measure_noise
from thermo_ebm.train.feed import Feed
from thermo_ebm.train.start import Prepared
from thermo_ebm.train.state import TrainState
from thermo_ebm.train.validation import bias_numbers
from thermo_ebm.types import Params


class Setting(NamedTuple):
    """What a plan chooses."""

    batch_size: int  # B
    chains: int  # M, per image
    num_temperatures: int  # N_t
    num_steps: int  # K, steps or trajectories of each posterior chain

    def change(self, config: ConfigDict) -> ConfigDict:
        """The configuration with this setting."""
        changed = ConfigDict(config.to_dict())
        changed.update_from_flattened_dict(self.fields())
        return changed.lock()

    def fields(self) -> dict[str, int]:
        """The values by the names of their fields."""
        return {
            "batch_size": self.batch_size,
            "sampler.chains_per_image": self.chains,
            "loss.num_temperatures": self.num_temperatures,
            "sampler.posterior.num_steps": self.num_steps,
        }


class ChainPrices(NamedTuple):
    """The noise and the time of images and chains, for one N_t and K."""

    of_image: float  # s_b, variance per parameter
    of_chain: float  # s_c
    fixed_seconds: float  # c_0, of a step of one repetition
    image_seconds: float  # c_b
    chain_seconds: float  # c_c
    bias: dict[str, float]  # relative to a batch's gradient, by parameter group; empty: unmeasured
    num_train: int  # N

    def noise(self, setting: Setting) -> float:
        """Predicted variance of the gradient per parameter."""
        images = 1 / setting.batch_size - 1 / self.num_train
        return self.of_image * images + self.of_chain / (setting.batch_size * setting.chains)

    def seconds(self, setting: Setting) -> float:
        """Predicted seconds of a step of one repetition."""
        per_image = self.image_seconds + setting.chains * self.chain_seconds
        return self.fixed_seconds + setting.batch_size * per_image

    def batch_size(self, noise: float, chains: int) -> int | None:
        """The smallest batch with at most this noise; None if it would be the whole data set."""
        reached = (self.of_image + self.of_chain / chains) / (
            noise + self.of_image / self.num_train
        )
        return math.ceil(reached) if reached <= self.num_train else None

    def best_chains(self) -> float:
        """M*; inf if chains take no time that was measured, nan without noise of the images."""
        if self.of_image <= 0:
            return math.nan
        if self.chain_seconds <= 0:
            return math.inf
        ratio = self.of_chain * self.image_seconds / (self.of_image * self.chain_seconds)
        return math.sqrt(max(ratio, 0.0))


class Row(NamedTuple):
    """One setting of a plan."""

    setting: Setting
    noise: float
    seconds: float
    seconds_to_halve: float  # further seconds of a step whose larger batch has half the noise
    bytes: int  # of each device
    bias: dict[str, float]


class NoiseAndTime(NamedTuple):
    """A setting that was measured."""

    noise: float
    seconds: float  # of a step of one repetition


class Laboratory(NamedTuple):
    """What all measurements share."""

    config: ConfigDict
    params: Params  # at which the noise is measured, of one repetition
    size: int  # repetitions that train together

    @contextlib.contextmanager
    def prepared(self, setting: Setting) -> Iterator[tuple[Prepared, Feed, TrainState]]:
        """Programs, images and the state of a setting at the parameters."""
        prepared = start.prepare(setting.change(self.config), self.size)
        state, shape = timing.first_state(prepared, self.size), (self.size,)
        params = jax.tree.map(lambda leaf: np.broadcast_to(leaf, shape + leaf.shape), self.params)
        state = state._replace(params=jax.device_put(params, programs.replicated()))
        with contextlib.closing(timing.training_feed(prepared.task)) as images:
            if state.path is not None:  # what the chains learn of their path, they learn here
                state = timing.advance(prepared, images, state, _LEARNING)
            yield prepared, images, state


_LEARNING = 30  # steps over which a learned path settles


def trained_params(config: ConfigDict, steps: int) -> Params:
    """The parameters of the first repetition after some steps, on the host."""
    prepared = start.prepare(config, 1)
    state = timing.first_state(prepared, 1)
    with contextlib.closing(timing.training_feed(prepared.task)) as images:
        state = timing.advance(prepared, images, state, steps)
    return jax.device_get(programs.local(programs.select_repetition(state, 0).params))


def setting_of(config: ConfigDict) -> Setting:
    """The setting of a configuration."""
    return Setting(
        config.batch_size,
        config.sampler.chains_per_image,
        config.loss.num_temperatures,
        config.sampler.posterior.num_steps,
    )


def is_valid(config: ConfigDict, setting: Setting) -> bool:
    """Whether a configuration can be trained with a setting."""
    try:
        checks.check(setting.change(config))
    except UserError:
        return False
    return True


def variants(config: ConfigDict) -> list[Setting]:
    """The present N_t and K, and half of each, with the present batch and chains."""
    present = setting_of(config)
    changed = [present]
    if config.loss.name != "vanilla" and present.num_temperatures > 1:
        changed.append(present._replace(num_temperatures=present.num_temperatures // 2))
    if present.num_steps > 1:
        changed.append(present._replace(num_steps=present.num_steps // 2))
    return [setting for setting in changed if is_valid(config, setting)]


def measure_prices(laboratory: Laboratory, setting: Setting, with_bias: bool) -> ChainPrices:
    """Measures the prices of one N_t and K: three timed settings, the noise of one, the bias."""
    config = laboratory.config
    bias = {}
    with laboratory.prepared(setting) as (prepared, images, state):
        noise = _noise(prepared, images, state)
        if with_bias:
            batches = images.take(bias_numbers(prepared.task))
            measured = jax.device_get(programs.local(prepared.programs.bias(state, batches)))
            bias = {name: float(of_group.bias[0]) for name, of_group in measured.items()}
        seconds = _step_seconds(prepared, images, state)
    batch, chains = setting.batch_size, setting.chains
    fewer = setting._replace(batch_size=max(batch // 2, 1))
    more = setting._replace(chains=2 * chains)
    of_fewer, of_more = (measure_seconds(laboratory, other) for other in (fewer, more))
    chain = max(of_more - seconds, 0.0) / (batch * chains)
    per_image = (seconds - of_fewer) / max(batch - fewer.batch_size, 1)
    per_image = min(max(per_image, chains * chain), seconds / batch)
    num_train = config.data.num_train
    images_part = 1 / batch - 1 / num_train
    return ChainPrices(
        of_image=max(float(noise.batch), 0.0) / images_part,
        of_chain=max(float(noise.chains + noise.interaction), 0.0) * batch * chains,
        fixed_seconds=seconds - batch * per_image,
        image_seconds=per_image - chains * chain,
        chain_seconds=chain,
        bias=bias,
        num_train=num_train,
    )


def measure_seconds(laboratory: Laboratory, setting: Setting) -> float:
    """Seconds of a step of one repetition."""
    with laboratory.prepared(setting) as of_setting:
        return _step_seconds(*of_setting)


def measure(laboratory: Laboratory, setting: Setting) -> NoiseAndTime:
    """The noise and the seconds of one setting."""
    with laboratory.prepared(setting) as (prepared, images, state):
        noise = float(_noise(prepared, images, state).total)
        return NoiseAndTime(noise, _step_seconds(prepared, images, state))


def _step_seconds(prepared: Prepared, images: Feed, state: TrainState) -> float:
    """Seconds of a step of one repetition; the state is consumed."""
    size = len(state.step)
    return timing.time_steps(prepared, images, state).seconds / size


def _noise(prepared: Prepared, images: Feed, state: TrainState) -> GradientNoise:
    """The crossed design, averaged over the repetitions, which have the same parameters."""
    size = len(state.step)
    sums = measure_noise(prepared.programs, images, state, np.ones(size, bool))
    total = jax.tree.map(lambda leaf: leaf.sum(axis=0), sums)
    return noise_of(total, num_entries(programs.local(state.params)) // size)


def rows(
    config: ConfigDict, prices: Sequence[tuple[Setting, ChainPrices]], size: int
) -> Iterator[Row]:
    """The settings of a plan: a half to twice the chains, once and twice the batch."""
    for setting, of_chains in prices:
        for factor in (1, 2, 4):
            chains = setting.chains * factor // 2
            for batch in (setting.batch_size, 2 * setting.batch_size):
                changed = setting._replace(batch_size=batch, chains=chains)
                if min(batch, chains) >= 1 and is_valid(config, changed):
                    yield make_row(config, changed, of_chains, size)


def make_row(config: ConfigDict, setting: Setting, prices: ChainPrices, size: int) -> Row:
    """What is predicted of one setting."""
    noise, seconds = prices.noise(setting), prices.seconds(setting)
    larger = prices.batch_size(noise / 2, setting.chains)
    halved = math.nan
    if larger is not None:
        halved = prices.seconds(setting._replace(batch_size=larger)) - seconds
    chunked = plan.with_chunk(setting.change(config), size)
    return Row(setting, noise, seconds, halved, plan.device_bytes(chunked, size), prices.bias)


def cheapest(
    config: ConfigDict,
    prices: Sequence[tuple[Setting, ChainPrices]],
    noise: float | None,
    seconds: float | None,
) -> Setting | None:
    """The fastest setting with at most this noise, or the least noise within these seconds a step.

    Args:
      config: the configuration.
      prices: of each N_t and K.
      noise: per parameter, or None.
      seconds: of a step of one repetition, or None.

    Returns:
      The setting; None if no setting reaches it.
    """
    candidates = []
    for setting, of_chains in prices:
        for chains in sorted({1, 2, 3, 4, 6, 8, 12, 16, setting.chains}):
            if noise is not None:
                batch = of_chains.batch_size(noise, chains)
            else:
                per_image = of_chains.image_seconds + chains * of_chains.chain_seconds
                left = (seconds or 0.0) - of_chains.fixed_seconds
                batch = min(int(left / per_image), of_chains.num_train) if per_image > 0 else None
            if batch is None or batch < 1:
                continue
            changed = setting._replace(batch_size=batch, chains=chains)
            if is_valid(config, changed):
                by = of_chains.seconds if noise is not None else of_chains.noise
                candidates.append((by(changed), changed))
    return min(candidates)[1] if candidates else None
