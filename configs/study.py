r"""Study: does an exact gradient or another quadrature prevent the collapse below p = 1?

python -m launch.sweep --experiment=configs/study.py --config=configs/digits_small.py \
    --workdir=runs/study

On an accelerator, with CIFAR-10:

python -m launch.sweep --experiment=configs/study.py --config=configs/cifar10_paper.py \
    --workdir=runs/study_cifar10 --config.data.data_dir=TFDS --config.sampler.precision=bfloat16 \
    --config.num_epochs=20
"""

from typing import Any

VANILLA_BATCH_SIZES = (25, 50, 75, 150)
POWERS = (0.1, 0.3, 1.0, 3.0, 6.0)
PRIOR_GRADIENTS = ("langevin", "contrastive", "none")
QUADRATURES = ("trapezium", "right")


def get_cells() -> list[dict[str, Any]]:
    """Returns the fields that each cell changes."""
    vanilla = [
        {"loss.name": "vanilla", "batch_size": size, "sampler.chains_per_image": 1}
        for size in VANILLA_BATCH_SIZES
    ]
    thermodynamic = [
        {
            "loss.name": "thermodynamic",
            "loss.power": power,
            "loss.prior_gradient": prior_gradient,
            "loss.quadrature": quadrature,
            "loss.generator_gradient": "detached",
            "loss.correction": "pooled_gaussian",
            "sampler.chains_per_image": 1,
            "batch_size": 75,
        }
        for prior_gradient in PRIOR_GRADIENTS
        for quadrature in QUADRATURES
        for power in POWERS
    ]
    return [cell | {"num_repetitions": 5} for cell in vanilla + thermodynamic]
