r"""Which settings to use: gradients, exchange, kernel and chain length, at small and at large p.

python -m launch.sweep --experiment=configs/settings_study.py --config=configs/digits_small.py \
    --workdir=runs/settings --num_sizes=6

One setting at a time is changed from the thermodynamic loss with `reweighted` gradients, N_t, K and
M = 2 of the configuration, the kernel `ula` and no exchange; each change is made at p = 0.1, 1 and
6. `configs/settings_study_short.py` has fewer cells and repetitions.

| setting | values |
|---|---|
| loss | vanilla; thermodynamic, as below |
| gradient | `reweighted`; `posterior`; `detached` with the trapezium, in the published form; \
`detached` with the right sum |
| `sampler.exchange_every` | 0, 2 |
| kernel of both chains | `ula`, `mala` |
| K, `sampler.posterior.num_steps` | once, twice that of the configuration |
| N_t, `loss.num_temperatures` (at p = 0.1) | once, twice that of the configuration |

Updates, images and learning rates are the same in all cells. Chains are not: the published form has
one chain per image, a larger K or N_t has more steps or chains, and the vanilla loss has no chains
between t = 0 and 1. The gradient of `posterior` depends on p only through exchange, so that
`posterior` is trained at p = 1 alone, and with exchange at every p.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict
from thermo_ebm.configs.experiment3 import UNBIASED
from thermo_ebm.configs.published import PUBLISHED

Change = dict[str, Any]


class Grid(NamedTuple):
    """The powers of each group of cells, and the repetitions of a cell."""

    gradients: tuple[float, ...]  # reweighted, and both detached ones
    samplers: tuple[float, ...]  # exchange, kernel and K with reweighted gradients
    posterior_samplers: tuple[float, ...]  # kernel and K with posterior gradients
    posterior_exchange: tuple[float, ...]
    temperatures: tuple[float, ...]  # twice N_t
    repetitions: int


FULL = Grid(
    gradients=(0.1, 1.0, 6.0),
    samplers=(0.1, 1.0, 6.0),
    posterior_samplers=(1.0,),
    posterior_exchange=(0.1, 1.0, 6.0),
    temperatures=(0.1,),
    repetitions=5,
)
CENTRE: Change = {
    "sampler.chains_per_image": 2,
    "sampler.exchange_every": 0,
    "sampler.prior.kernel": "ula",
    "sampler.posterior.kernel": "ula",
}
REWEIGHTED = CENTRE | {"loss.name": "thermodynamic"} | UNBIASED
POSTERIOR = REWEIGHTED | {"loss.generator_gradient": "posterior"}
PUBLISHED_FORM = REWEIGHTED | PUBLISHED
RIGHT = REWEIGHTED | {"loss.generator_gradient": "detached", "loss.quadrature": "right"}


def get_cells(config: ConfigDict) -> list[Change]:
    """Returns the fields that each cell changes in the configuration of a data set."""
    return make_cells(config, FULL)


def make_cells(config: ConfigDict, grid: Grid) -> list[Change]:
    """Returns the cells of a grid: vanilla first, then the gradients, then their chains."""
    longer = {"sampler.posterior.num_steps": 2 * config.sampler.posterior.num_steps}
    exchange, adjusted = {"sampler.exchange_every": 2}, _kernel("mala")
    cells: list[Change] = [CENTRE | {"loss.name": "vanilla"}, POSTERIOR]
    cells += [
        form | {"loss.power": power}
        for form in (REWEIGHTED, PUBLISHED_FORM, RIGHT)
        for power in grid.gradients
    ]
    cells += _changed(REWEIGHTED, (exchange, adjusted, longer), grid.samplers)
    cells += _changed(POSTERIOR, (adjusted, longer), grid.posterior_samplers)
    cells += _changed(POSTERIOR, (exchange,), grid.posterior_exchange)
    more = {"loss.num_temperatures": 2 * config.loss.num_temperatures}
    cells += _changed(REWEIGHTED, (more,), grid.temperatures)
    together = {"num_repetitions": grid.repetitions, "parallel_repetitions": grid.repetitions}
    return [cell | together for cell in cells]


def _changed(form: Change, changes: tuple[Change, ...], powers: tuple[float, ...]) -> list[Change]:
    return [form | change | {"loss.power": power} for change in changes for power in powers]


def _kernel(name: str) -> Change:
    return {"sampler.prior.kernel": name, "sampler.posterior.kernel": name}
