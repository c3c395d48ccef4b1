"""The programs that `benchmarks/step.py` times: a step, its chains, its plain form and a peer."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks import plain
from thermo_ebm.config import build
from thermo_ebm.config.build import sampler_settings
from thermo_ebm.cost import flops, plan
from thermo_ebm.gradients.optimisers import NoisyGradient, init_optimisers, update
from thermo_ebm.models import conv_transpose, latent_ebm
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling.chains import tempered_chains
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.schedule import make_schedule
from thermo_ebm.train import feed, programs
from thermo_ebm.train.state import init_state
from thermo_ebm.train.task import AXIS, Task, make_optimisers, make_task
from thermo_ebm.types import Batch, Params


class Program(NamedTuple):
    """A compiled program that can be called repeatedly."""

    call: Callable[[], None]
    count: flops.FlopCount  # of the arithmetic that is computed
    model_flops: int  # of the model: transposed convolutions in their direct form
    bytes_planned: int  # a device's arguments, results and buffers
    compile_s: float


def make_model(config: ConfigDict, form: str) -> LatentEBM:
    """The model with a named form of the transposed convolution, whatever the backend's."""
    transposed = getattr(conv_transpose, form)
    return latent_ebm.make_model(config.model, config.data.channels, transposed)


def image_shape(config: ConfigDict) -> tuple[int, int, int]:
    """[height, width, channels]."""
    return config.data.image_size, config.data.image_size, config.data.channels


def with_chunks(config: ConfigDict, model: LatentEBM) -> ConfigDict:
    """The chunks of images and chains, chosen as the trainer does where the config leaves them."""
    return plan.with_chunk(config, 1, plan.this_machine(model))


def task_of(config: ConfigDict, model: LatentEBM) -> Task:
    """The trainer's task with this model."""
    objective = build.make_objective(config, model, AXIS)
    return make_task(config)._replace(model=model, objective=objective)


def fast_step(config: ConfigDict, model: LatentEBM) -> Program:
    """One step of the trainer, over all local devices."""
    task = task_of(config, model)
    step = programs.map_step(task)
    init = jax.jit(partial(init_state, task), out_shardings=programs.replicated())
    numbers = np.arange(task.images_per_step).reshape(-1, config.batch_size)
    batches = feed.take(_images(config).__getitem__, numbers)
    counts = _counts(_step_flops, config, model)
    return _compile(step, counts, init(jnp.uint32(0)), batches)


def chains(config: ConfigDict, model: LatentEBM) -> Program:
    """The chains of one step alone, at all temperatures, on one device."""
    batch, loss = _batch(config), config.loss
    schedule = make_schedule(loss.schedule, loss.num_temperatures, loss.power)
    params = jax.jit(model.init)(jax.random.key(0))

    def sample(
        config: ConfigDict, model: LatentEBM, step: jax.Array, params: Params, batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        key, settings = jax.random.fold_in(jax.random.key(1), step), sampler_settings(config)
        z = tempered_chains(model, params, batch, Ladder(schedule), key, settings).latents
        return step + 1, z

    def count(config: ConfigDict, model: LatentEBM) -> flops.FlopCount:
        return flops.count_flops(partial(sample, config, model), jnp.int32(0), params, batch)

    fn = jax.jit(lambda carry, *args: sample(config, model, carry[0], *args))
    per_image = config.sampler.chains_per_image
    latents = (len(schedule.temperatures), per_image, config.batch_size, config.model.latent_dim)
    carry = (jnp.int32(0), jnp.zeros(latents))
    return _compile(fn, _counts(count, config, model), carry, params, batch)


def plain_step(config: ConfigDict, model: LatentEBM) -> Program:
    """The same step in its plain form, on one device."""
    adams = make_optimisers(config.optimizer, steps_per_epoch=1)
    loss = plain.make_loss(config)

    @partial(jax.jit, donate_argnums=0)
    def step(state: tuple, batch: Batch) -> tuple:
        params, optimiser, key = state
        key, chain_key = jax.random.split(key)
        grads = jax.grad(loss)(params, batch, chain_key)
        moments = (NoisyGradient(grads),) * 2
        return *update(adams, moments, optimiser, params)[:2], key

    def init(key: jax.Array) -> tuple:
        params = model.init(key)
        return params, init_optimisers(adams, params), key

    state = jax.jit(init)(jax.random.key(0))
    counts = _counts(_step_flops, config, model)
    return _compile(step, counts, state, _batch(config))


def torch_step(config: ConfigDict, model: LatentEBM) -> Callable[[], None]:
    """The same step in PyTorch, on all cores of the host."""
    from benchmarks import torch_peer  # torch is optional

    params = jax.jit(model.init)(jax.random.key(0))
    return torch_peer.make_step(config, params, _batch(config).images)


def _counts(
    count: Callable[[ConfigDict, LatentEBM], flops.FlopCount], config: ConfigDict, model: LatentEBM
) -> tuple[flops.FlopCount, int]:
    """The arithmetic that the program does, and that of the model."""
    useful = count(plan.without_filling(config), make_model(config, "dilated")).useful
    return count(config, model), useful


def _step_flops(config: ConfigDict, model: LatentEBM) -> flops.FlopCount:
    loss = build.make_loss(config, model, None)
    return flops.gradient_flops(loss, model, config.batch_size, image_shape(config))


def _images(config: ConfigDict) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (config.data.num_train, *image_shape(config)), np.uint8)


def _batch(config: ConfigDict) -> Batch:
    images = _images(config)[: config.batch_size].astype(np.float32) / 127.5 - 1
    return Batch(jnp.asarray(images), jnp.arange(len(images)), jnp.ones(len(images)))


def _compile(fn: Any, counts: tuple[flops.FlopCount, int], state: Any, *args: Any) -> Program:
    """A program from a function of (state, ...) to the next state, which consumes the state."""
    start = time.perf_counter()
    compiled = fn.lower(state, *args).compile()
    compile_s = time.perf_counter() - start

    def call() -> None:
        nonlocal state
        state = jax.block_until_ready(compiled(state, *args))

    return Program(call, *counts, bytes_planned(compiled), compile_s)


def bytes_planned(compiled: jax.stages.Compiled) -> int:
    """Bytes of arguments, results and buffers that XLA plans on one device."""
    plan = compiled.memory_analysis()
    planned = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    return planned - plan.alias_size_in_bytes
