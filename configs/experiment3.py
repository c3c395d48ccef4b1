r"""Does the noise of the learning gradient decide image quality? Noise by each factor that sets it.

python -m launch.sweep --experiment=configs/experiment3.py --config=configs/digits_small.py \
    --workdir=runs/noise --num_sizes=6

One factor at a time is changed from a centre, for the vanilla and for the thermodynamic loss with
unbiased gradients (`contrastive`, `reweighted`). The centre has batch size 75, p = 1, M = 2 chains
per image and noise as it is. `configs/experiment3_short.py` has fewer values and repetitions.

| factor | values | what else it changes |
|---|---|---|
| `gradient_noise.amplification` | 1, 2, 4, 8, 16 | with `second_moment="plain"`: nothing |
| `loss.power` (thermodynamic) | 0.01, 0.03, 0.1, 0.3, 1, 3, 6 | the temperatures of the chains |
| `sampler.chains_per_image` | 1 (vanilla), 2, 4, 8 | the number of chains |
| `batch_size` | 25, 50, 75, 150 | images seen, and chains per update |
| `gradient_noise.accumulate` | 1, 4 | images seen, and chains per update |

Other factors than the amplification also change the size of the steps, by Adam's second moment
(`train_step_size`); `configs/noise_or_step.py` tells noise and steps apart.

All cells have the same number of updates, the same training images and the same learning rates,
which are constant. Cells with larger batches therefore train for more epochs and see more images;
the paper keeps the epochs equal, and smaller batches then also have more updates. The ratio
correction needs two chains per image, so that M = 1 is left to the vanilla loss. The epochs of the
centre are those of the configuration, rounded up to a multiple of 3: numbers of updates are then
equal where 300 divides `data.num_train`, and otherwise differ by less than an epoch.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

BATCH_SIZE = 75  # of the centre

Change = dict[str, Any]


class Grid(NamedTuple):
    """The values of each factor, those of the centre left out, and the repetitions of a cell."""

    amplifications: tuple[float, ...]
    powers: tuple[float, ...]
    vanilla_chains: tuple[int, ...]
    thermodynamic_chains: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    accumulations: tuple[int, ...]
    repetitions: int


FULL = Grid(
    amplifications=(2.0, 4.0, 8.0, 16.0),
    powers=(0.01, 0.03, 0.1, 0.3, 3.0, 6.0),
    vanilla_chains=(1, 4, 8),
    thermodynamic_chains=(4, 8),
    batch_sizes=(25, 50, 150),
    accumulations=(4,),
    repetitions=5,
)
CENTRE: Change = {
    "batch_size": BATCH_SIZE,
    "sampler.chains_per_image": 2,
    "gradient_noise.amplification": 1.0,
    "gradient_noise.accumulate": 1,
    "gradient_noise.target": 0.0,
    "optimizer.decay.rate": 1.0,  # constant: decay counts epochs, which are not equal
}
UNBIASED: Change = {
    "loss.schedule": "power",
    "loss.power": 1.0,
    "loss.quadrature": "warped_trapezium",
    "loss.correction": "ratio",
    "loss.kl_form": "difference",
    "loss.prior_gradient": "contrastive",
    "loss.generator_gradient": "reweighted",
}


def get_cells(config: ConfigDict) -> list[Change]:
    """Returns the fields that each cell changes in the configuration of a data set."""
    return make_cells(config, FULL)


def make_cells(config: ConfigDict, grid: Grid) -> list[Change]:
    """Returns the cells of a grid, each loss's centre first."""
    vanilla, thermodynamic = {"loss.name": "vanilla"}, {"loss.name": "thermodynamic"} | UNBIASED
    cells = [vanilla | change for change in _factors(grid, grid.vanilla_chains)]
    cells += [thermodynamic | change for change in _factors(grid, grid.thermodynamic_chains)]
    cells += [thermodynamic | {"loss.power": power} for power in grid.powers]
    together = {"num_repetitions": grid.repetitions, "parallel_repetitions": grid.repetitions}
    return [with_equal_updates(config, CENTRE | cell | together) for cell in cells]


def _factors(grid: Grid, chains: tuple[int, ...]) -> list[Change]:
    """The factors that both losses have, one at a time."""
    changes: list[Change] = [{}]
    changes += [{"gradient_noise.amplification": factor} for factor in grid.amplifications]
    changes += [{"sampler.chains_per_image": number} for number in chains]
    changes += [{"batch_size": size} for size in grid.batch_sizes]
    return changes + [{"gradient_noise.accumulate": number} for number in grid.accumulations]


def with_equal_updates(config: ConfigDict, cell: Change) -> Change:
    """Adds the number of epochs with which a cell has as many updates as the centre."""
    num_train, epochs = config.data.num_train, 3 * -(-config.num_epochs // 3)
    updates = epochs * (num_train // BATCH_SIZE)
    per_epoch = num_train // (cell["batch_size"] * cell["gradient_noise.accumulate"])
    return cell | {"num_epochs": max(round(updates / max(per_epoch, 1)), 1)}
