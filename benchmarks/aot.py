"""Compiles the training step for TPUs without a TPU, and prints what the compiler expects of it.

  python -m benchmarks.aot --topology=v5e:2x2 --config=configs/cifar10_paper.py \
      --config.sampler.precision=bfloat16 --config.sampler.exchange_every=2
  python -m benchmarks.aot --topology=v6e:4x4 --config=configs/celeb_a_paper.py \
      --config.batch_size=512 --forms=on_tpu,dilated --csv=aot.csv

The complete step is compiled as the trainer maps it over the devices of the topology, with the
chunks of images that the trainer would choose there. XLA's TPU compiler (libtpu, from
requirements-tpu.txt) runs on any machine; a compilation takes minutes of one core.

Every figure is estimated by the compiler or follows from its estimates; nothing is measured. Time
is the sum of the cycles that the compiler expects of each operation (`benchmarks/tpu_program.py`)
divided by the chip's clock, without communication between chips. FLOP/s are the model's arithmetic,
in bfloat16 or float32, over that time; the fraction is that of the peak of all chips in bfloat16
(`benchmarks/chips.py`). Memory is what the compiler plans for each device. One product of
large matrices is estimated in the same way, for comparison.

The output ends in the line
`topology=... hbm_mib=... estimated_step_ms=... estimated_fraction_of_peak=...` of the last form.
"""

if not __package__:
    __import__("not_a_script")

import csv
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from absl import flags
from jax.experimental import topologies
from ml_collections import ConfigDict

from benchmarks import programs, tpu_program
from benchmarks.chips import Topology, read_topology
from launch import config_file, program
from launch.path_flags import DEFINE_output_file
from thermo_ebm import runtime
from thermo_ebm.config import checks
from thermo_ebm.config.build import image_shape
from thermo_ebm.cost import memory, plan
from thermo_ebm.errors import UserError, one_line
from thermo_ebm.scopes import PARTS
from thermo_ebm.train import programs as train_programs
from thermo_ebm.train.state import init_state
from thermo_ebm.train.step import Batches
from thermo_ebm.train.task import Task

ESTIMATED = "estimated by the compiler"
FORMS = ("on_tpu", "dilated", "stamped", "on_cpu")
PRODUCT = 4096  # rows and columns of the matrices whose product is estimated for comparison
STEP = "step"  # in the place of a part's name: all parts together


class Row(NamedTuple):
    """A part of a step, or the complete step, in one form."""

    form: str
    part: str
    mcycles: float  # millions of cycles of one chip
    ms: float
    share: float  # of the step's time
    gflop: float  # the model's, of the whole batch
    tflop_s: float  # of all chips together
    fraction: float  # of the peak of all chips


class Step(NamedTuple):
    """A step compiled in one form."""

    form: str
    chunk: int  # images sampled at once on each device; 0 is all
    chain_chunk: int  # of their chains, evaluated at once; 0 is all
    hbm_bytes: int  # of each device
    compile_s: float
    rows: list[Row]  # the parts, then the step

    @property
    def total(self) -> Row:
        """The row of the complete step."""
        return self.rows[-1]


def topology_devices(topology: Topology) -> list[jax.Device]:
    """The devices of a topology, which can be compiled for but not used.

    Raises:
      UserError: libtpu is not installed, or does not know the topology.
    """
    # What the compiler would ask a machine with TPUs; the compiler reads it once, at its start.
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["TPU_ACCELERATOR_TYPE"] = topology.accelerator_type
    os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
    runtime.raise_vmem_limit()  # as on a machine of that type
    # A host has 2 x 2 chips unless the topology is a single chip.
    bounds = {"chips_per_host_bounds": [1, 1, 1]} if topology.num_chips == 1 else {}
    try:
        description = topologies.get_topology_desc(
            platform="tpu", topology_name=topology.name, **bounds
        )
    except RuntimeError as error:
        if "not installed" in str(error):
            raise UserError(
                "compiling for TPUs needs libtpu: pip install -r requirements-tpu.txt"
            ) from error
        raise UserError(f"topology={topology.name}: {one_line(error)}") from error
    return list(description.devices)


def compile_step(
    config: ConfigDict, form: str, topology: Topology, devices: Sequence[jax.Device]
) -> Step:
    """Compiles the step with one form of the transposed convolution."""
    model = programs.make_model(config, form)
    usable = memory.usable_of("tpu", topology.chip.hbm_bytes)
    vmem = memory.VMEM_BYTES[topology.chip.kind]
    config = plan.with_chunk(config, 1, plan.PlanTarget(model, len(devices), usable, vmem))
    start = time.perf_counter()
    task = programs.task_of(config, model)
    compiled = lower_step(task, devices).compile()
    compile_s = time.perf_counter() - start
    rows = make_rows(form, topology, cycles_by_part(compiled), plan.step_flops_by_part(config))
    sampler = config.sampler
    return Step(
        form,
        sampler.image_chunk,
        sampler.chain_chunk,
        programs.bytes_planned(compiled),
        compile_s,
        rows,
    )


def lower_step(task: Task, devices: Sequence[jax.Device]) -> jax.stages.Lowered:
    """The step of the trainer for devices that need not be there, ready to be compiled.

    Args:
      task: the task.
      devices: all devices, such as those of `jax.experimental.topologies`.
    """
    task = task._replace(halves_together=plan.halves_together(devices[0].platform))
    by_process = sorted(devices, key=lambda device: device.process_index)
    share = -(-task.config.batch_size // len(devices))
    of_device = (len(devices), task.gradient_noise.accumulate, share)
    batches = jax.eval_shape(
        lambda: Batches(
            jnp.zeros((*of_device, *image_shape(task.config)), jnp.uint8),
            jnp.zeros(of_device, jnp.int32),
        )
    )
    state = jax.eval_shape(lambda: init_state(task, jnp.uint32(0)))
    return train_programs.map_step(task, by_process).lower(state, batches)


def cycles_by_part(compiled: jax.stages.Compiled) -> dict[str, int]:
    """The compiler's estimate of one run, in cycles of a chip's clock."""
    return tpu_program.estimated_cycles(tpu_program.read_program(compiled.as_text()))


def product_fraction(topology: Topology, device: jax.Device) -> float:
    """The fraction of a chip's peak that the compiler expects of one product of square matrices.

    From the same sums of cycles and in bfloat16; a step can hardly exceed this fraction.
    """
    sharding = jax.sharding.SingleDeviceSharding(device)
    matrix = jax.ShapeDtypeStruct((PRODUCT, PRODUCT), jnp.bfloat16, sharding=sharding)
    compiled = jax.jit(jnp.dot, out_shardings=sharding).lower(matrix, matrix).compile()
    cycles = sum(cycles_by_part(compiled).values())
    return 2 * PRODUCT**3 * topology.chip.clock_hz / (cycles * topology.chip.peak_flops)


def make_rows(
    form: str, topology: Topology, cycles: dict[str, int], operations: dict[str, int]
) -> list[Row]:
    """The table of one form: a row for each part, and one for the step.

    Args:
      form: its name.
      topology: the chips.
      cycles: of one chip, by part.
      operations: the model's arithmetic on all chips, by part.
    """
    chip, total = topology.chip, sum(cycles.values())

    def row(part: str, of_part: int, done: int) -> Row:
        seconds = of_part / chip.clock_hz
        rate = done / seconds if of_part else 0.0
        return Row(
            form=form,
            part=part,
            mcycles=of_part / 1e6,
            ms=1e3 * seconds,
            share=of_part / total,
            gflop=done / 1e9,
            tflop_s=rate / 1e12,
            fraction=rate / (topology.num_chips * chip.peak_flops),
        )

    parts = [row(p, cycles.get(p, 0), operations.get(p, 0)) for p in (*PARTS, tpu_program.OTHER)]
    return [*parts, row(STEP, total, sum(operations.values()))]


def print_step(step: Step, topology: Topology) -> None:
    """Prints the table of one form."""
    hbm = topology.chip.hbm_bytes
    print(
        f"\n{step.form}: compiled in {step.compile_s:.0f} s, image_chunk {step.chunk}, "
        f"chain_chunk {step.chain_chunk}; memory of each device, {ESTIMATED}: "
        f"{step.hbm_bytes / 2**20:.0f} MiB of {hbm / 2**20:.0f} ({step.hbm_bytes / hbm:.1%})"
    )
    print(f"{ESTIMATED}:")
    print_row([field for field in Row._fields if field != "form"])
    for row in step.rows:
        print_row(row[1:])


def print_row(values: Sequence[object]) -> None:
    texts = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    print(texts[0].ljust(18), *(text.rjust(9) for text in texts[1:]), flush=True)


def write_csv(path: Path, steps: Sequence[Step], topology: Topology) -> None:
    """Writes all tables as one; the names of the columns say what is estimated."""
    shared = ("topology", "chunk", "chain_chunk", "hbm_mib")
    names = {"mcycles": "estimated_mcycles", "ms": "estimated_ms", "share": "estimated_share"}
    names |= {"tflop_s": "estimated_tflop_s", "fraction": "estimated_fraction_of_peak"}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*shared, *(names.get(field, field) for field in Row._fields)])
        for step in steps:
            of_step = (topology.name, step.chunk, step.chain_chunk, step.hbm_bytes / 2**20)
            writer.writerows([*of_step, *row] for row in step.rows)


def read_forms(names: Sequence[str]) -> list[str]:
    """Checks the names of forms.

    Raises:
      UserError: naming the form that does not exist.
    """
    for name in names:
        if name not in FORMS:
            raise UserError(f"forms={name}: no such form; there are {', '.join(FORMS)}")
    return list(names)


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    config_file.define("cifar10_paper", "The configuration.")
    flags.DEFINE_string("topology", "v5e:2x2", "Chip and shape, such as v5e:2x2 or v5p:2x2x1.")
    flags.DEFINE_list("forms", ["on_tpu"], "Forms of the transposed convolution, by name.")
    DEFINE_output_file("csv", "CSV file to which the tables are written.")


def main(argv: Sequence[str]) -> None:
    del argv
    topology, forms = read_topology(flags.FLAGS.topology), read_forms(flags.FLAGS.forms)
    config = config_file.read()
    checks.check(config)
    jax.config.update("jax_platforms", "cpu")  # libtpu compiles here and runs nothing
    devices = topology_devices(topology)
    print(
        f"jax {jax.__version__} for {len(devices)} x {devices[0].device_kind} ({topology.name}), "
        f"batch {config.batch_size}: every figure is {ESTIMATED}, none is measured"
    )
    print(
        f"one product of {PRODUCT} x {PRODUCT} bfloat16 matrices, {ESTIMATED}: "
        f"{product_fraction(topology, devices[0]):.3f} of the peak"
    )
    steps = []
    for form in forms:
        step = compile_step(config, form, topology, devices)
        steps.append(step)
        print_step(step, topology)
    if flags.FLAGS.csv:
        write_csv(Path(flags.FLAGS.csv), steps, topology)
    print(
        f"topology={topology.name} hbm_mib={step.hbm_bytes / 2**20:.0f} "
        f"estimated_step_ms={step.total.ms:.4g} "
        f"estimated_fraction_of_peak={step.total.fraction:.3f}"
    )


if __name__ == "__main__":
    program.run(main, define_flags)
