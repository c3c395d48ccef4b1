"""The compiled programs of a run: the step over all devices, vmapped over repetitions.

The only module that uses `jax.pmap` or `jax.shard_map`; `device_mapping` chooses. States are
stacked, one repetition along each leading axis, and replicated over the devices; images are split
over the devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermo_ebm import data
from thermo_ebm.config.build import sampler_settings
from thermo_ebm.gradients import noise
from thermo_ebm.gradients.bias import GradientBias
from thermo_ebm.randomness import PICTURES
from thermo_ebm.sampling.samples import sample_images
from thermo_ebm.train import step, validation
from thermo_ebm.train.state import TrainState, begin_epoch, init_state
from thermo_ebm.train.task import AXIS, Task
from thermo_ebm.types import Array, Params, PRNGKey

NUM_PICTURES = 64


class Programs(NamedTuple):
    """Compiled functions of stacked states [num_repetitions, ...]."""

    init: Callable[[np.ndarray], TrainState]  # seeds [num_repetitions]
    run: Callable[..., TrainState]  # (state, stop [num_repetitions], limit, batches of a `Feed`)
    validate: Callable[..., tuple[Array, Any]]  # (state, validation batches)
    likelihood: Callable[..., validation.MeanLikelihood]  # (state, batch of validation images)
    zero_noise: Callable[[TrainState], noise.NoiseSums]
    noise_numbers: Callable[..., Array]  # (state, blocks [num_repetitions])
    add_noise_block: Callable[..., tuple[noise.NoiseSums, Array]]  # (state, sums, batches)
    bias: Callable[..., dict[str, GradientBias]]  # (state, batches), by parameter group
    begin_epoch: Callable[..., TrainState]  # (state, epoch, has_ended), [num_repetitions] each
    draw: Callable[[Params, PRNGKey], Array]  # of one repetition -> uint8 [NUM_PICTURES, ...]


def make_programs(task: Task, num_repetitions: int) -> Programs:
    """Builds the programs; each compiles when it is first called.

    `run` and `begin_epoch` consume (donate) the state they are given. Every call returns when its
    results are ready: on a CPU with several devices, steps dispatched ahead of each other can hang.
    """
    over = _over_one if num_repetitions == 1 else jax.vmap
    over_devices = DEVICE_MAPPINGS[task.config.device_mapping]
    run = over(partial(step.run_steps, task), (0, 0, None, 0))
    validate = over(partial(validation.validate, task), (0, None))
    likelihood = over(partial(validation.evaluate_likelihood, task), (0, None))
    add_noise_block = over(partial(validation.add_noise_block, task), (0, 0, 0))
    bias = over(partial(validation.gradient_bias, task), (0, None))
    return Programs(
        init=_jit(over(partial(init_state, task), (0,))),
        run=over_devices(run, (None, None, None, 0), donate_argnums=0),
        validate=over_devices(validate, (None, 0)),
        likelihood=over_devices(likelihood, (None, 0)),
        zero_noise=_jit(over(lambda state: noise.zero_sums(), (0,))),
        noise_numbers=_jit(over(partial(validation.noise_numbers, task), (0, 0))),
        add_noise_block=over_devices(add_noise_block, (None, None, 0)),
        bias=over_devices(bias, (None, 0)),
        begin_epoch=_jit(over(_begin_where, (0, 0, 0)), donate_argnums=0),
        draw=jax.jit(partial(_draw, task)),
    )


def map_step(task: Task, devices: list[jax.Device] | None = None) -> Any:
    """One training step of one repetition over all devices: (state, batches) -> state.

    For measurements; the state is consumed, and the call returns before its results are ready.
    """
    return jax.pmap(
        partial(step.train_step, task),
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=devices or _devices(),
        donate_argnums=0,
    )


def _begin_where(state: TrainState, epoch: Array, has_ended: Array) -> TrainState:
    new = begin_epoch(state, epoch)
    return jax.tree.map(lambda a, b: jnp.where(has_ended, a, b), new, state)


def _draw(task: Task, params: Params, key: PRNGKey) -> Array:
    key_samples, _ = jax.random.split(jax.random.fold_in(key, PICTURES))
    settings = sampler_settings(task.config).prior
    return data.to_uint8(sample_images(task.model, params, key_samples, NUM_PICTURES, settings))


def _over_one(fn: Callable[..., Any], in_axes: tuple[int | None, ...]) -> Callable[..., Any]:
    """vmap over an axis of length 1 without its cost: loops keep their conditions."""

    def squeezed(*args: Any) -> Any:
        results = fn(*_without_axis(args, in_axes))
        return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), results)

    return squeezed


def _without_axis(args: tuple, in_axes: tuple[int | None, ...]) -> list[Any]:
    """The arguments, those whose axis is 0 without this axis, which has the length 1."""
    return [
        arg if axis is None else jax.tree.map(lambda leaf: leaf[0], arg)
        for arg, axis in zip(args, in_axes, strict=True)
    ]


def _pmap(
    fn: Callable[..., Any], in_axes: tuple[int | None, ...], **options: Any
) -> Callable[..., Any]:
    """`fn` on every device, with its part of the arguments whose axis is 0; results are equal."""
    devices = _devices()
    mapped = jax.pmap(fn, AXIS, in_axes=in_axes, out_axes=None, devices=devices, **options)
    if jax.process_count() == 1:
        return lambda *args: jax.block_until_ready(mapped(*args))
    return lambda *args: jax.block_until_ready(jax.tree.map(_as_global, mapped(*args)))


def _shard_map(
    fn: Callable[..., Any], in_axes: tuple[int | None, ...], **options: Any
) -> Callable[..., Any]:
    """The same as `_pmap` by `jax.shard_map`, in which a device's part keeps its axis."""

    def on_a_device(*args: Any) -> Any:
        return fn(*_without_axis(args, in_axes))

    everywhere, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(AXIS)
    mapped = jax.shard_map(
        on_a_device,
        mesh=replicated().mesh,
        in_specs=tuple(everywhere if axis is None else split for axis in in_axes),
        out_specs=everywhere,
        check_vma=False,  # `collectives` has the derivatives of sums over devices
    )
    compiled = jax.jit(mapped, **options)
    return lambda *args: jax.block_until_ready(compiled(*args))


# How programs are spread over devices; results are replicated.
DEVICE_MAPPINGS = {"pmap": _pmap, "shard_map": _shard_map}


def _as_global(leaf: jax.Array) -> jax.Array:
    """Copies on this process's devices, as pmap returns them, as one array of all processes."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_as_global(jax.random.key_data(leaf)))
    copies = [shard.data for shard in leaf.addressable_shards]
    return jax.make_array_from_single_device_arrays(leaf.shape, replicated(), copies)


def _jit(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """For computations without images: every device computes the same, replicated like a state."""
    compiled = jax.jit(fn, out_shardings=replicated(), **options)
    return lambda *args: jax.block_until_ready(compiled(*args))


def _devices() -> list[jax.Device]:
    """All devices, those of each process together."""
    return [
        device
        for process in range(jax.process_count())
        for device in jax.local_devices(process_index=process)
    ]


def replicated() -> jax.sharding.NamedSharding:
    """The sharding of an array of which every device of every process has a copy."""
    mesh = jax.sharding.Mesh(np.array(_devices()), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def spread(parts: np.ndarray) -> jax.Array:
    """This process's parts [local_devices, ...], one on each of its devices."""
    sharding = jax.sharding.NamedSharding(replicated().mesh, jax.sharding.PartitionSpec(AXIS))
    return jax.make_array_from_process_local_data(sharding, parts)


def local(tree: Any) -> Any:
    """One device's copy of replicated arrays."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def select_repetition(state: TrainState, repetition: int) -> TrainState:
    """One repetition of a stacked state, still replicated."""
    return jax.tree.map(lambda leaf: leaf[repetition], state)


def stack_repetitions(states: list[TrainState]) -> TrainState:
    """States [...] as one stacked state [num_repetitions, ...]."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def counters(state: TrainState) -> TrainState:
    """The state's scalars on the host, [num_repetitions] each, without the large arrays."""
    large: dict[str, Any] = dict.fromkeys(("params", "average", "optimiser", "order", "key"))
    return jax.device_get(local(state._replace(**large)))
