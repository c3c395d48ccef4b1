"""The compiled programs of a run: the step under pmap over all devices, vmapped over repetitions.

The only module that uses pmap. States are stacked, one repetition along each leading axis, and
replicated over the devices; images are split over them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermo_ebm.cost.plan import halves_together
from thermo_ebm.gradients.noise import GradientNoise
from thermo_ebm.train import step, validation
from thermo_ebm.train.batches import (
    Layout,
    batch_share,
    dispatch_order,
    make_dispatch_layout,
    make_layout,
)
from thermo_ebm.train.state import TrainState, begin_epoch
from thermo_ebm.train.tasks import AXIS, Task, init_state
from thermo_ebm.types import Array


class Programs(NamedTuple):
    """Compiled functions of stacked states [num_repetitions, ...]."""

    init: Callable[[np.ndarray], TrainState]  # seeds [num_repetitions]
    run: Callable[..., TrainState]  # (state, stop [num_repetitions], limit, images of a `Feed`)
    validate: Callable[..., tuple[Array, Any]]  # (state, validation images)
    noise: Callable[..., GradientNoise]  # (state, train images)
    likelihood: Callable[..., validation.MeanLikelihood]  # (state, validation images)
    begin_epoch: Callable[..., TrainState]  # (state, epoch, chosen), [num_repetitions] each


def make_programs(task: Task, num_repetitions: int) -> Programs:
    """Builds the programs; each compiles when it is first called.

    `run` and `begin_epoch` consume (donate) the state they are given. Every call returns when its
    results are ready: on a CPU with several devices, steps dispatched ahead of each other can hang.
    """
    over = _over_one if num_repetitions == 1 else _over_many
    train, val = make_layout(task.num_train), make_layout(task.num_val)
    run = over(partial(_run, task, train), in_axes=(0, 0, None, None))
    if task.streaming:
        run = over(partial(_run_streamed, task), in_axes=(0, 0, None, 0))
    validate = over(lambda state, part: validation.validate(task, state, part, val), (0, None))
    noise = over(lambda state, part: validation.measure_noise(task, state, part, train), (0, None))
    evaluate = partial(validation.evaluate_likelihood, task)
    likelihood = over(lambda state, part: evaluate(state, part, val), (0, None))
    return Programs(
        init=_blocking(_jit(over(partial(init_state, task), (0,)))),
        run=_blocking(_pmap(run, in_axes=(None, None, None, 0), donate_argnums=0)),
        validate=_blocking(_pmap(validate, in_axes=(None, 0))),
        noise=_blocking(_pmap(noise, in_axes=(None, 0))),
        likelihood=_blocking(_pmap(likelihood, in_axes=(None, 0))),
        begin_epoch=_blocking(_jit(over(_begin_where, (0, 0, 0)), donate_argnums=0)),
    )


def map_step(task: Task) -> Callable[..., Any]:
    """One training step of one repetition over all devices: (state, train images) -> state.

    For measurements; the state is consumed, and the call returns before its results are ready.
    """
    return _mapped_step(task, make_layout(task.num_train), _devices())


def lower_step(
    task: Task, devices: Sequence[jax.Device], image_shape: tuple[int, ...]
) -> jax.stages.Lowered:
    """The step of `map_step` for devices that need not be there, ready to be compiled.

    Args:
      task: the task.
      devices: all devices, such as those of `jax.experimental.topologies`.
      image_shape: [height, width, channels].
    """
    task = task._replace(halves_together=halves_together(devices[0].platform))
    of_process = sorted(devices, key=lambda device: device.process_index)  # as `Layout` has them
    processes = len({device.process_index for device in devices})
    layout = Layout(task.num_train, processes, len(devices) // processes)
    state = jax.eval_shape(lambda: init_state(task, jnp.uint32(0)))
    images = (layout.num_devices, layout.per_device, *image_shape)
    step_of_all = _mapped_step(task, layout, of_process)
    return step_of_all.lower(state, jax.ShapeDtypeStruct(images, jnp.uint8))


def _mapped_step(task: Task, layout: Layout, devices: list[jax.Device]) -> Any:
    return jax.pmap(
        lambda state, part: step.train_step(task, state, part, layout),
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=devices,
        donate_argnums=0,
    )


def _run(task: Task, layout: Any, state: TrainState, stop: Array, limit: Array, part: Array) -> Any:
    return step.run_steps(task, state, stop, limit, part, layout)


def _run_streamed(task: Task, state: TrainState, stop: Array, limit: Array, part: Array) -> Any:
    """As `_run`, where `part` holds this device's share of each batch of the next steps alone."""
    share = batch_share(task.batch_size, make_layout(task.num_train))
    layout = make_dispatch_layout(task.batch_size, part.shape[0] // share)
    first = state.step % task.steps_per_epoch * task.gradient_noise.accumulate
    order = dispatch_order(task.num_train, first, task.batch_size, layout)
    done = step.run_steps(task, state._replace(order=order), stop, limit, part, layout)
    return done._replace(order=state.order)


def _begin_where(state: TrainState, epoch: Array, chosen: Array) -> TrainState:
    new = begin_epoch(state, epoch)
    return jax.tree.map(lambda a, b: jnp.where(chosen, a, b), new, state)


def _over_many(fn: Callable[..., Any], in_axes: tuple[int | None, ...]) -> Callable[..., Any]:
    return jax.vmap(fn, in_axes=in_axes)


def _over_one(fn: Callable[..., Any], in_axes: tuple[int | None, ...]) -> Callable[..., Any]:
    """vmap over an axis of length 1 without its cost: loops keep their conditions."""

    def squeezed(*args: Any) -> Any:
        args = tuple(
            arg if axis is None else jax.tree.map(lambda leaf: leaf[0], arg)
            for arg, axis in zip(args, in_axes, strict=True)
        )
        return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), fn(*args))

    return squeezed


def _pmap(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """The single place where programs are spread over devices; results are replicated."""
    mapped = jax.pmap(fn, axis_name=AXIS, out_axes=None, devices=_devices(), **options)
    if jax.process_count() == 1:
        return mapped
    return lambda *args: jax.tree.map(_as_global, mapped(*args))


def _as_global(leaf: jax.Array) -> jax.Array:
    """Copies on this process's devices, as pmap returns them, as one array of all processes."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_as_global(jax.random.key_data(leaf)))
    copies = [shard.data for shard in leaf.addressable_shards]
    return jax.make_array_from_single_device_arrays(leaf.shape, replicated(), copies)


def _jit(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """For computations without data: every device computes the same, replicated like a state."""
    return jax.jit(fn, out_shardings=replicated(), **options)


def _blocking(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: jax.block_until_ready(fn(*args))


def _devices() -> list[jax.Device]:
    """All devices, those of a process together, as `batches.Layout` has them."""
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
    """One repetition out of a stacked state, still replicated."""
    return jax.tree.map(lambda leaf: leaf[repetition], state)


def stack_repetitions(states: list[TrainState]) -> TrainState:
    """States [...] as one stacked state [num_repetitions, ...]."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
