"""TPU chips and topologies: what a compiler's estimate of a step is compared with.

Peak and memory are those of Google's documentation (https://cloud.google.com/tpu/docs/v4 and the
same with v5e, v5p and v6e). The clock is not documented there; it follows from the peak and the
matrix units, in which every cell does one multiply-add per cycle:

    v4    275 TFLOP/s = 2 cores x 4 units x 128 x 128 x 2 x 1.05 GHz
    v5e   197 TFLOP/s = 1 core  x 4 units x 128 x 128 x 2 x 1.50 GHz
    v5p   459 TFLOP/s = 2 cores x 4 units x 128 x 128 x 2 x 1.75 GHz
    v6e   918 TFLOP/s = 1 core  x 4 units x 256 x 256 x 2 x 1.75 GHz

For v6e, JAX and the newest documentation count two units, with which the peak would need twice the
clock; 1.75 GHz is an assumption.
"""

import math
import re
from typing import NamedTuple

from thermo_ebm.errors import UserError


class Chip(NamedTuple):
    """One TPU chip, which is one device to JAX."""

    clock_hz: float
    peak_flops: float  # per second, bfloat16, a multiply-add is two
    hbm_bytes: int
    cores: int
    kind: str  # JAX's name, `device_kind`
    accelerator: str  # in accelerator types
    counts_cores: bool  # whether an accelerator type gives the number of cores, not of chips


CHIPS = {
    "v4": Chip(1.05e9, 275e12, 32 * 2**30, 2, "TPU v4", "v4", True),
    "v5e": Chip(1.5e9, 197e12, 16 * 2**30, 1, "TPU v5 lite", "v5litepod", False),
    "v5p": Chip(1.75e9, 459e12, 95 * 2**30, 2, "TPU v5", "v5p", True),
    "v6e": Chip(1.75e9, 918e12, 32 * 2**30, 1, "TPU v6 lite", "v6e", False),
}


class Topology(NamedTuple):
    """Chips that are connected in a grid."""

    name: str  # as JAX takes it, such as "v5e:2x2"
    chip: Chip
    shape: tuple[int, ...]

    @property
    def num_chips(self) -> int:
        """Number of chips, each of them one device."""
        return math.prod(self.shape)

    @property
    def accelerator_type(self) -> str:
        """The type of machine that has these chips, as Cloud TPU names it.

        >>> read_topology("v5e:4x4").accelerator_type, read_topology("v4:2x2x1").accelerator_type
        ('v5litepod-16', 'v4-8')
        """
        chip = self.chip
        number = self.num_chips * (chip.cores if chip.counts_cores else 1)
        return f"{chip.accelerator}-{number}"


def read_topology(text: str) -> Topology:
    """Reads a topology.

    >>> read_topology("v6e:2x2").num_chips
    4

    Args:
      text: chip and shape: "v5e:2x2" or "v6e:4x4", "v4:2x2x1" or "v5p:2x2x4".

    Raises:
      UserError: for a chip that is not in `CHIPS`, or a shape of the wrong number of axes.
    """
    name, _, grid = text.partition(":")
    if name not in CHIPS:
        raise UserError(f"topology={text}: no chip {name!r}; there are {', '.join(CHIPS)}")
    axes = 3 if CHIPS[name].counts_cores else 2  # large chips are connected in three dimensions
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", grid) or len(grid.split("x")) != axes:
        example = f"{name}:" + "x".join("221"[:axes])
        raise UserError(f"topology={text}: the shape has {axes} axes, as in {example}")
    return Topology(text, CHIPS[name], tuple(map(int, grid.split("x"))))
