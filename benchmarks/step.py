"""Times training steps and compares them with the machine's peak speed of matrix multiplication.

  python -m benchmarks.step --config=configs/cifar10_paper.py --batch_sizes=8 --num_temperatures=4 \
      --num_steps=5
  python -m benchmarks.step --config=configs/cifar10_paper.py --num_temperatures=10,30 --noplain \
      --gradients=contrastive+detached,langevin+langevin --csv=steps.csv
  python -m benchmarks.step --config=configs/celeb_a_paper.py --config.sampler.precision=bfloat16 \
      --parts=step,chains --forms=stamped,dilated --noplain  # on a GPU
  python -m benchmarks.step --config=configs/cifar10_paper.py --losses=thermodynamic,vanilla \
      --batch_sizes=8 --num_temperatures=4 --num_steps=5 --noplain --peer=torch

Each combination of the given values is one row; fields without given values are those of the
configuration. A row is timed on random images after a warm-up, and each step is timed between two
measurements of the peak:
the fraction is the median over steps of the step's FLOP/s over the mean of those two.

FLOPs are the model's arithmetic, counted from the jaxpr (`thermo_ebm/cost/flops.py`): every matrix
product once, and transposed convolutions in their direct form, whichever form is timed. Forms can
therefore be compared by `fraction`, which exceeds 1 where a form saves products. `executed` is the
share of the peak that the machine sustains: the products that are actually computed, recomputed
ones included. Memory is what XLA plans for one device: arguments, results, buffers.

With `--peer=torch`, the step of each row is then timed in turns with the same step in PyTorch
(`benchmarks/torch_peer.py`). The last row's step is also timed in the plain form
(`benchmarks/plain.py`). The output ends in the line `fraction_of_peak=... ratio_to_plain=...` of
that row, with ` ratio_to_torch=...` where there is a peer.
"""

if not __package__:
    __import__("not_a_script")

import csv
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from benchmarks import gemm, programs
from benchmarks.programs import Program
from launch import config_file, flag_errors, program
from launch.path_flags import DEFINE_output_file
from thermo_ebm.errors import UserError
from thermo_ebm.losses import VANILLA, LossSettings
from thermo_ebm.losses.settings import GENERATOR_GRADIENTS, PRIOR_GRADIENTS
from thermo_ebm.models import conv_transpose

PARTS = {"step": programs.fast_step, "chains": programs.chains}
FORMS = ("on_cpu", "on_tpu", "stamped", "dilated", "winograd")
GRADIENTS = ["+".join(pair) for pair in itertools.product(PRIOR_GRADIENTS, GENERATOR_GRADIENTS)]


class Row(NamedTuple):
    """One line of the table: what was timed, and what came out."""

    part: str
    form: str
    loss: str
    gradients: str
    batch: int
    n_t: int
    k: int
    chunk: int  # images sampled at once; 0 is all
    step_s: float
    images_s: float
    gflop: float  # the model's, of one step
    gflop_s: float
    peak_gflop_s: float
    fraction: float  # of the peak, by the model's arithmetic
    executed: float  # of the peak, by the products that are computed
    memory_mib: float
    compile_s: float


class Cell(NamedTuple):
    """What to time."""

    part: str
    form: str
    config: ConfigDict


def make_cells() -> Iterator[Cell]:
    """Every combination of the flags' values."""
    parts = flag_errors.choices("parts", PARTS)
    choices = {
        "loss.name": flag_errors.choices("losses", ("thermodynamic", "vanilla")),
        "gradients": flag_errors.choices("gradients", GRADIENTS),
        "batch_size": flag_errors.integers("batch_sizes"),
        "loss.num_temperatures": flag_errors.integers("num_temperatures"),
        "sampler.posterior.num_steps": flag_errors.integers("num_steps"),
    }
    asked = {field: list(values) for field, values in choices.items() if values}
    forms = flag_errors.choices("forms", FORMS) or [
        conv_transpose.for_backend(jax.default_backend()).__name__
    ]
    for part, form, *values in itertools.product(parts, forms, *asked.values()):
        config = ConfigDict(config_file.read().to_dict())
        fields = dict(zip(asked, values, strict=True))
        if "gradients" in fields:
            prior, generator = fields.pop("gradients").split("+")
            fields |= {"loss.prior_gradient": prior, "loss.generator_gradient": generator}
        config.update_from_flattened_dict(fields)
        # No data set is loaded: an epoch is a few batches of random images.
        config.data.num_train = 4 * config.batch_size
        yield Cell(part, form, config)


def without_duplicates(cells: Iterator[Cell]) -> Iterator[Cell]:
    """Drops vanilla cells that differ only in settings without effect on the vanilla loss."""
    keys = set()
    for cell in cells:
        if LossSettings.from_config(cell.config) == VANILLA:
            config = cell.config
            key = (cell.form, config.batch_size, config.sampler.posterior.num_steps)
            if cell.part == "chains" or key in keys:
                continue
            keys.add(key)
        yield cell


def time_program(compiled: Program, peak: gemm.Gemm) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each step, and the peak's FLOP/s around it, [repeats] each."""
    for _ in range(flags.FLAGS.warm_up):
        compiled.call()
    seconds, rates = [], [peak.rate(flags.FLAGS.peak_seconds)]
    for _ in range(flags.FLAGS.repeats):
        seconds.append(_seconds(compiled.call))
        rates.append(peak.rate(flags.FLAGS.peak_seconds))
    return np.array(seconds), (np.array(rates[1:]) + np.array(rates[:-1])) / 2


def _seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(cell: Cell, peak: gemm.Gemm) -> tuple[Row, Program]:
    """Compiles and times one cell."""
    config = cell.config
    model = programs.make_model(config, cell.form)
    config = programs.with_chunks(config, model)
    compiled = PARTS[cell.part](config, model)
    seconds, rates = time_program(compiled, peak)
    step_s, settings = np.median(seconds), LossSettings.from_config(config)
    row = Row(
        part=cell.part,
        form=cell.form,
        loss=config.loss.name,
        gradients=f"{settings.prior_gradient}+{settings.generator_gradient}",
        batch=config.batch_size,
        n_t=settings.num_temperatures,
        k=config.sampler.posterior.num_steps,
        chunk=config.sampler.image_chunk,
        step_s=step_s,
        images_s=config.batch_size / step_s,
        gflop=compiled.model_flops / 1e9,
        gflop_s=compiled.model_flops / step_s / 1e9,
        peak_gflop_s=np.median(rates) / 1e9,
        fraction=np.median(compiled.model_flops / seconds / rates),
        executed=np.median(compiled.count.matmul / seconds / rates),
        memory_mib=compiled.bytes_planned / 2**20,
        compile_s=compiled.compile_s,
    )
    return row, compiled


class Turns(NamedTuple):
    """Times of a slower step, and of our steps before and after each; [repeats] each."""

    ours: np.ndarray  # seconds, the mean of both
    other: np.ndarray  # seconds

    @property
    def ratio(self) -> float:
        """The other step's time over ours, the median."""
        return float(np.median(self.other / self.ours))


def in_turns(ours: Callable[[], None], other: Callable[[], None], repeats: int) -> Turns:
    """Times each step of `other` between two of ours."""
    ours_s, other_s = [], []
    for _ in range(repeats):
        before, between, after = _seconds(ours), _seconds(other), _seconds(ours)
        ours_s.append((before + after) / 2)
        other_s.append(between)
    return Turns(np.array(ours_s), np.array(other_s))


def ratio_to_plain(cell: Cell, fast: Program) -> float:
    """The plain form's time over the fast one's, each plain step beside a fast one."""
    plain = programs.plain_step(cell.config, programs.make_model(cell.config, cell.form))
    print(f"plain form compiled in {plain.compile_s:.1f} s", flush=True)
    turns = in_turns(fast.call, plain.call, flags.FLAGS.plain_repeats)
    for ours, other in zip(*turns, strict=True):
        print(f"plain step {other:.2f} s, fast step {ours:.2f} s", flush=True)
    return turns.ratio


def check_peer(cells: Sequence[Cell]) -> None:
    """Refuses, before anything is timed, a step that the peer cannot compute."""
    try:
        from benchmarks import torch_peer
    except ImportError as error:
        raise UserError("peer=torch: needs PyTorch: pip install torch==2.13.0") from error
    for cell in cells:
        torch_peer.check(cell.config)


def ratio_to_torch(cell: Cell, ours: Program) -> float:
    """The peer's time over ours, each step of the peer beside two of ours."""
    peer = programs.torch_step(cell.config, programs.make_model(cell.config, cell.form))
    for _ in range(flags.FLAGS.warm_up):
        peer()
    turns = in_turns(ours.call, peer, flags.FLAGS.repeats)
    print(
        f"peer torch: loss {cell.config.loss.name} batch {cell.config.batch_size} "
        f"ours {np.median(turns.ours):.3f} s, peer {np.median(turns.other):.3f} s, "
        f"ratio {turns.ratio:.2f}",
        flush=True,
    )
    return turns.ratio


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_row(values: Sequence[object]) -> None:
    wide = {"loss": 13, "gradients": 21}
    widths = [wide.get(name, max(len(name), 9)) for name in Row._fields]
    print(*(_text(v).rjust(w) for v, w in zip(values, widths, strict=True)), flush=True)


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    config_file.define("cifar10_paper", "The configuration.")
    flags.DEFINE_list(
        "parts", ["step"], "Parts to time: step (complete) or chains (only the sampling)."
    )
    flags.DEFINE_list("forms", None, "Forms of the transposed convolution, by name.")
    flags.DEFINE_list("losses", None, "Losses to time: thermodynamic, vanilla.")
    flags.DEFINE_list(
        "gradients", None, "Gradients to time, each as prior_gradient+generator_gradient."
    )
    flags.DEFINE_list("batch_sizes", None, "Batch sizes, over all devices.")
    flags.DEFINE_list("num_temperatures", None, "Values of N_t.")
    flags.DEFINE_list("num_steps", None, "Values of K, steps of the posterior's chains.")
    flags.DEFINE_integer("repeats", 5, "Number of timed steps for each row.")
    flags.DEFINE_integer("warm_up", 1, "Number of steps before timing.")
    flags.DEFINE_float("peak_seconds", 0.5, "Seconds for each measurement of the peak.")
    flags.DEFINE_bool("plain", True, "Whether to time the plain form of the last row.")
    flags.DEFINE_integer("plain_repeats", 2, "Number of timed steps in the plain form.")
    flags.DEFINE_enum("peer", None, ["torch"], "A peer with which every step is timed in turns.")
    DEFINE_output_file("csv", "CSV file to which the table is written.")


def main(argv: Sequence[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)
    device = jax.local_devices()[0]
    load = f", load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"jax {jax.__version__} on {jax.local_device_count()} x {device.device_kind}{load}")
    _print_row(Row._fields)
    timed_cells = list(without_duplicates(make_cells()))
    if flags.FLAGS.peer:
        check_peer(timed_cells)
    rows, peaks, peer_steps = [], {}, []
    for cell in timed_cells:
        dtype = cell.config.sampler.precision
        if dtype not in peaks:
            peaks[dtype] = gemm.fastest(dtype)
        row, compiled = measure(cell, peaks[dtype])
        rows.append(row)
        _print_row(row)
        if flags.FLAGS.peer and cell.part == "step":
            peer_steps.append((cell, compiled))
    if flags.FLAGS.csv:
        _write_csv(Path(flags.FLAGS.csv), rows)
    peer_ratios = [ratio_to_torch(*peer_step) for peer_step in peer_steps]
    last = cell.part == "step"
    ratio = f"{ratio_to_plain(cell, compiled):.2f}" if flags.FLAGS.plain and last else "not_timed"
    line = f"fraction_of_peak={rows[-1].fraction:.3f} ratio_to_plain={ratio}"
    if flags.FLAGS.peer:
        line += f" ratio_to_torch={peer_ratios[-1]:.2f}" if last else " ratio_to_torch=not_timed"
    print(line)


if __name__ == "__main__":
    program.run(main, define_flags)
