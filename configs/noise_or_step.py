r"""Is it the noise of the gradient that changes image quality, or the size of the steps?

python -m launch.sweep --experiment=configs/noise_or_step.py --config=configs/digits_small.py \
    --config.num_epochs=9 --workdir=runs/step --num_sizes=6

Amplified noise in Adam's second moment shortens the steps too. With c the amplification:

| cells | noise | step size |
|---|---|---|
| centre, c = 1 | as it is | as it is |
| `second_moment="plain"`, c = 4, 16 | c times the variance | unchanged |
| `second_moment="alone"`, c = 4, 16 | unchanged | as short as with c in both moments |
| `second_moment="amplified"`, c = 4, 16 | c times the variance | shorter: Adam as published |
| p = 0.1, 6; M; batch size 25, 150 | by these settings | changed by the noise |

The centre and the equal numbers of updates are those of `configs/experiment3.py`. With the linear
reference (`configs/digits_small_linear.py`) there are no temperatures between 0 and 1, hence no p,
and the centre has one chain per image.
"""

from typing import Any

from ml_collections import ConfigDict
from thermo_ebm.configs.experiment3 import CENTRE, UNBIASED, with_equal_updates

Change = dict[str, Any]

AMPLIFICATIONS = (16.0, 4.0)
SECOND_MOMENTS = ("plain", "alone", "amplified")
BATCH_SIZES = (25, 150)
POWERS = (0.1, 6.0)
REPETITIONS = 5


def get_cells(config: ConfigDict) -> list[Change]:
    """Returns the fields that each cell changes: the arms first, then p, M and the batch size."""
    centre = CENTRE | {"loss.name": "thermodynamic"}
    if config.loss.reference == "linear":
        centre |= {"sampler.chains_per_image": 1}
        others: list[Change] = [{"sampler.chains_per_image": chains} for chains in (2, 4)]
    else:
        centre |= UNBIASED
        others = [{"loss.power": power} for power in POWERS]
        others += [{"sampler.chains_per_image": chains} for chains in (4, 8)]
    arms: list[Change] = [{}]
    arms += [
        {"gradient_noise.amplification": c, "gradient_noise.second_moment": second_moment}
        for c in AMPLIFICATIONS
        for second_moment in SECOND_MOMENTS
    ]
    others += [{"batch_size": size} for size in BATCH_SIZES]
    together = {"num_repetitions": REPETITIONS, "parallel_repetitions": REPETITIONS}
    return [with_equal_updates(config, centre | together | change) for change in (*arms, *others)]
