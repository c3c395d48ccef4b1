"""Counts what a training step takes on each of several devices, and what large data sets would.

  XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m benchmarks.scale
  python -m benchmarks.scale --config=configs/celeb_a.py --chip=v5e --fraction=0.5 \
      --config.sampler.precision=bfloat16 --topologies=v5e:1x1,v5e:2x2,v5e:2x4,v5e:4x4

The first table is counted in the compiled step, for 1, 2, 4, ... of the devices that there are, or
for TPUs that need not be there (`--topologies`; 2 x 4 chips are two hosts, see `benchmarks.aot`):
bytes of the arguments and of what XLA plans on each device, and the collectives, their number and
the bytes of their results. The batch is the configuration's, shared by the devices.

The second table is arithmetic, and called an estimate: seconds are the counted operations of a
step over the chip's documented peak times `--fraction`, which comes from `benchmarks.aot`; they
leave out communication. Where there are more devices than images in a batch, the batch grows to one
image for each device.
"""

if not __package__:
    __import__("not_a_script")

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import ConfigDict

from benchmarks import aot, programs
from benchmarks.chips import CHIPS, read_topology
from launch import config_file, program
from thermo_ebm.config import checks
from thermo_ebm.config.build import image_shape
from thermo_ebm.cost import plan
from thermo_ebm.errors import UserError
from thermo_ebm.models import conv_transpose
from thermo_ebm.train.state import init_state
from thermo_ebm.train.task import Task

DATA_SETS = {  # training images
    "CelebA": 162_770,
    "SVHN with extra": 604_388,
    "ImageNet": 1_281_167,
}
DEVICES = (1, 8, 64, 512)
EPOCHS = 100
_MIB = 2**20
_BYTES_OF_A_PLACE = 4  # of an image in the epoch's order, int32
_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
# An operation may have several results: `%a = (f32[3]{0}, f32[2,2]{1,0}) all-reduce(`.
_COLLECTIVE = re.compile(rf"%\S+ = (?P<results>.*?) (?:{_KINDS})(?:-start)?\(")
_ARRAY = re.compile(r"(?P<dtype>pred|bf16|[suf]\d+)\[(?P<shape>[\d,]*)\]")


class Counts(NamedTuple):
    """What one step takes, on each device."""

    devices: int
    images: int  # of the batch, on a device
    argument_bytes: int
    planned_bytes: int  # arguments, results and buffers
    collectives: int
    collective_bytes: int


class StepCost(NamedTuple):
    """What does not depend on the data set or on the devices."""

    batch_size: int
    operations: float  # of an image's share of a step
    image_bytes: int
    state_bytes: int  # of one repetition, without the order of the images


class Estimate(NamedTuple):
    """What training on a data set would take."""

    data_set: str
    devices: int
    batch_size: int
    step_s: float
    epoch_s: float
    host_bytes: int  # the images, in each host's memory
    order_bytes: int  # the epoch's order of the images, on each device and in the checkpoint
    checkpoint_bytes: int


def collective_sizes(text: str) -> list[int]:
    """Bytes of the results of each collective operation in a compiled program's text.

    >>> collective_sizes("  %a = (f32[3]{0}, /*index=1*/bf16[2,2]{1,0}) all-reduce(%b, %c)")
    [20]
    >>> collective_sizes("  %a = f32[] all-reduce-start(%b)")
    [4]
    """
    return [
        sum(_array_bytes(array) for array in _ARRAY.finditer(operation["results"]))
        for operation in _COLLECTIVE.finditer(text)
    ]


def _array_bytes(array: re.Match) -> int:
    bits = re.search(r"\d+", array["dtype"])
    size = math.prod(int(length) for length in array["shape"].split(",") if length)
    return size * (int(bits[0]) // 8 if bits else 1)


def count_step(config: ConfigDict, devices: Sequence[jax.Device]) -> Counts:
    """Compiles the step for these devices, which need not be there, and counts."""
    compiled = aot.lower_step(_task(config, devices[0].platform), devices).compile()
    sizes = collective_sizes(compiled.as_text())
    return Counts(
        devices=len(devices),
        images=-(-config.batch_size // len(devices)),
        argument_bytes=compiled.memory_analysis().argument_size_in_bytes,
        planned_bytes=programs.bytes_planned(compiled),
        collectives=len(sizes),
        collective_bytes=sum(sizes),
    )


def state_bytes(config: ConfigDict) -> int:
    """Bytes of one repetition's training state, which every device holds and a checkpoint saves."""
    task = _task(config, jax.default_backend())
    leaves = jax.tree.leaves(jax.eval_shape(lambda: init_state(task, jnp.uint32(0))))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _task(config: ConfigDict, platform: str) -> Task:
    form = conv_transpose.for_backend(platform).__name__
    return programs.task_of(config, programs.make_model(config, form))


def step_cost(config: ConfigDict) -> StepCost:
    """What a step of the configuration's model and settings takes, whatever the data set."""
    order_bytes = config.data.num_train * _BYTES_OF_A_PLACE
    return StepCost(
        batch_size=config.batch_size,
        operations=plan.step_flops(config) / config.batch_size,
        image_bytes=math.prod(image_shape(config)),
        state_bytes=state_bytes(config) - order_bytes,
    )


def estimate(cost: StepCost, data_set: str, num_devices: int, flops_per_second: float) -> Estimate:
    """What a data set would take, with images of the configuration's size.

    Args:
      cost: of a step; its batch grows to one image a device where it is smaller.
      data_set: a name in `DATA_SETS`.
      num_devices: equal devices.
      flops_per_second: of each device, as a step reaches it.
    """
    num_images = DATA_SETS[data_set]
    share = -(-cost.batch_size // num_devices)
    batch_size = max(cost.batch_size, num_devices)
    step_s = share * cost.operations / flops_per_second
    order_bytes = num_images * _BYTES_OF_A_PLACE
    return Estimate(
        data_set=data_set,
        devices=num_devices,
        batch_size=batch_size,
        step_s=step_s,
        epoch_s=num_images // batch_size * step_s,
        host_bytes=num_images * cost.image_bytes,
        order_bytes=order_bytes,
        checkpoint_bytes=cost.state_bytes + order_bytes,
    )


def print_counts(counts: Iterable[Counts]) -> None:
    """Prints the table of what was counted."""
    print("devices  images  arguments MiB  planned MiB  collectives  their MiB")
    for row in counts:
        print(
            f"{row.devices:7d} {row.images:7d} {row.argument_bytes / _MIB:14.1f} "
            f"{row.planned_bytes / _MIB:12.1f} {row.collectives:12d} "
            f"{row.collective_bytes / _MIB:10.2f}",
            flush=True,
        )


def print_estimates(estimates: Sequence[Estimate]) -> None:
    """Prints the table of estimates."""
    print(
        f"{'data set':>16} devices  batch  step ms  epoch min  {EPOCHS} epochs h  "
        "host GiB  order MiB  checkpoint MiB"
    )
    for row in estimates:
        print(
            f"{row.data_set:>16} {row.devices:7d} {row.batch_size:6d} {1e3 * row.step_s:8.1f} "
            f"{row.epoch_s / 60:10.2f} {EPOCHS * row.epoch_s / 3600:13.1f} "
            f"{row.host_bytes / 2**30:9.2f} {row.order_bytes / _MIB:10.2f} "
            f"{row.checkpoint_bytes / _MIB:15.1f}",
            flush=True,
        )


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    config_file.define("celeb_a", "The configuration.")
    flags.DEFINE_list("topologies", [], "Count for these TPUs, such as v5e:1x1,v5e:2x4.")
    flags.DEFINE_enum("chip", "v5e", sorted(CHIPS), "Chip of the estimates.")
    flags.DEFINE_float(
        "fraction", 0.5, "Fraction of the chip's peak that a step reaches.", 0.0, 1.0
    )


def main(argv: Sequence[str]) -> None:
    del argv
    values = flags.FLAGS
    if not values.fraction:
        raise UserError("fraction=0: must be larger than 0")
    config = config_file.read()
    checks.check(config)
    topologies = [read_topology(name) for name in values.topologies]
    if topologies:
        jax.config.update("jax_platforms", "cpu")  # libtpu compiles here and runs nothing
    numbers = [n for n in (2**i for i in range(10)) if n <= jax.device_count()]
    sets = [aot.topology_devices(t) for t in topologies] or [jax.devices()[:n] for n in numbers]
    print(f"counted in the compiled step of batch {config.batch_size}, on each device:")
    print_counts(count_step(config, devices) for devices in sets)
    chip = CHIPS[values.chip]
    print(
        f"\nestimated for {values.chip}: {values.fraction:.2f} of {chip.peak_flops / 1e12:.0f} "
        f"TFLOP/s, images of {config.data.image_size} x {config.data.image_size}, one repetition:"
    )
    cost, speed = step_cost(config), values.fraction * chip.peak_flops
    print_estimates([estimate(cost, name, n, speed) for name in DATA_SETS for n in DEVICES])


if __name__ == "__main__":
    program.run(main, define_flags)
