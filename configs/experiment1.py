r"""The paper's first experiment: gradient variance by batch size (vanilla) and p (thermodynamic).

python -m launch.sweep --experiment=configs/experiment1.py --config=configs/cifar10_paper.py \
    --config.data.data_dir=TFDS --workdir=runs/experiment1
"""

from typing import Any

from thermo_ebm.configs.published import PUBLISHED

VANILLA_BATCH_SIZES = (25, 50, 75, 150)
POWERS = (0.1, 0.3, 1.0, 2.0, 3.0, 6.0, 10.0)


def get_cells() -> list[dict[str, Any]]:
    """Returns the fields that each cell changes."""
    vanilla = [
        {"loss.name": "vanilla", "batch_size": size, "sampler.chains_per_image": 1}
        for size in VANILLA_BATCH_SIZES
    ]
    thermodynamic = [
        PUBLISHED | {"loss.name": "thermodynamic", "loss.power": power, "batch_size": 75}
        for power in POWERS
    ]
    return [cell | {"num_repetitions": 5} for cell in vanilla + thermodynamic]
