"""The fields of every configuration, with the paper's sizes and chains (tables 4 and 5).

This file is not trained by itself: `configs/digits.py` and the files of the other data sets change
the fields that differ. docs/configuration.md explains every field.
"""

from ml_collections import ConfigDict


def _data() -> ConfigDict:
    """The images."""
    data = ConfigDict()
    # digits, idx, folder, npz, or a TFDS data set: cifar10, svhn_cropped, celeb_a, mnist, ...
    data.name = "cifar10"
    # TFDS folder, folder of images or IDX files, or .npz file; "" is the default folder of TFDS.
    data.data_dir = ""
    data.image_size = 32
    data.channels = 3
    data.num_train = 12_000
    data.num_val = 4_500
    data.skip_unreadable = False  # skip images that cannot be read
    data.streaming = False  # read training images when they are needed
    return data


def _model() -> ConfigDict:
    """The prior and the generator."""
    model = ConfigDict()
    model.latent_dim = 100
    model.prior_sigma = 1.0
    model.likelihood_sigma = 0.3
    # "langevin" gradients are correct only for a smooth tilt (gelu); the paper has leaky_relu.
    model.prior = ConfigDict({"features": 100, "leak": 0.1, "activation": "leaky_relu"})
    # Layer i is a transposed convolution to widths[i] * features channels; the last layer has the
    # last stride and the channels of the image.
    model.generator = ConfigDict(
        {
            "features": 64,
            "leak": 0.2,
            "widths": (16, 8, 4, 2),
            "strides": (1, 2, 2, 2, 1),
            "kernel_size": 4,
        }
    )
    return model


def _sampler() -> ConfigDict:
    """The Langevin chains."""
    sampler = ConfigDict()
    sampler.prior = ConfigDict({"step_size": 0.16, "num_steps": 60, "kernel": "ula"})
    sampler.posterior = ConfigDict({"step_size": 0.01, "num_steps": 20, "kernel": "ula"})
    sampler.chains_per_image = 2  # M, at every temperature
    sampler.exchange_every = 0  # steps between exchanges; 0 disables exchange
    sampler.image_chunk = 0  # images sampled at once; 0 fits the memory
    sampler.chain_chunk = 0  # of their chains, evaluated at once; 0 chooses
    sampler.precision = "float32"  # of the networks in chains; or bfloat16
    return sampler


def _loss() -> ConfigDict:
    """The objective and its gradients."""
    loss = ConfigDict()
    loss.name = "thermodynamic"  # or vanilla
    loss.num_temperatures = 10
    loss.schedule = "power"  # or annealed_power, sigmoid, equal_barrier
    loss.power = 1.0
    loss.final_power = 1.0  # of annealed_power, after anneal_epochs
    loss.anneal_epochs = 50
    loss.quadrature = "warped_trapezium"  # or warped_simpson, trapezium, left, right
    loss.correction = "ratio"  # or none, pooled_gaussian
    loss.kl_form = "difference"  # or sum
    loss.kl_weight = 1.0
    loss.prior_gradient = "contrastive"  # or langevin, none
    loss.generator_gradient = "reweighted"  # or posterior, detached, langevin
    return loss


def _gradient_noise() -> ConfigDict:
    """The gradient's noise."""
    gradient_noise = ConfigDict()
    gradient_noise.amplification = 1.0  # factor of the gradient's covariance, at least 1
    gradient_noise.accumulate = 1  # batches per update
    gradient_noise.target = 0.0  # of the update's gradient, per parameter; 0: no target
    return gradient_noise


def get_config() -> ConfigDict:
    """Returns the base configuration, unlocked, so that the file of a data set can change it."""
    config = ConfigDict()
    config.seed = 0  # repetition r uses seed + r
    config.num_repetitions = 5
    config.parallel_repetitions = 1  # repetitions trained together in one program
    config.num_epochs = 50
    config.batch_size = 75
    config.val_batches = 10  # for val_loss and temperatures.csv; 0 uses all

    config.data = _data()
    config.model = _model()
    config.sampler = _sampler()
    config.loss = _loss()
    config.gradient_noise = _gradient_noise()

    # val_log_marginal_likelihood, the held-out log-likelihood, by the same estimator in all runs.
    config.evaluation = ConfigDict()
    config.evaluation.likelihood = ConfigDict({"every_epochs": 10})  # 0 evaluates none

    config.optimizer = ConfigDict()
    config.optimizer.prior = ConfigDict(
        {"learning_rate": 2e-5, "final_learning_rate": 1e-5, "b1": 0.5, "b2": 0.999}
    )
    config.optimizer.generator = ConfigDict(
        {"learning_rate": 1e-4, "final_learning_rate": 5e-5, "b1": 0.5, "b2": 0.999}
    )
    config.optimizer.decay = ConfigDict({"begin_epoch": 1, "rate": 0.975})
    config.optimizer.clip_norm = 0.0  # 0 disables clipping

    config.divergence = ConfigDict()
    config.divergence.max_rollbacks = 3  # rollbacks before the repetition ends as diverged

    config.steps_per_dispatch = 20  # at most; fewer if these would take more than two seconds

    config.checkpoint = ConfigDict()
    config.checkpoint.every_epochs = 1
    config.checkpoint.every_steps = 0  # also within an epoch; 0: only at the end of epochs
    config.checkpoint.keep = 3  # number of newest checkpoints kept
    config.checkpoint.keep_every_epochs = 10  # also kept, permanently; 0 keeps none

    config.logging = ConfigDict()
    config.logging.pictures_every_epochs = 5  # 0 draws none
    config.logging.grad_noise_every_epochs = 0  # 0 measures none
    # Where readings go: csv (always), tensorboard, wandb, or your own class as MODULE:CLASS.
    config.logging.writers = ("csv", "tensorboard")
    return config
