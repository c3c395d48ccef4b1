"""A trained run as one object for scripts and notebooks: its configuration, parameters and images.

>>> import jax
>>> import thermo_ebm as te
>>> run = te.load_run("runs/digits")  # doctest: +SKIP
>>> images = run.sample(64, jax.random.key(0))  # doctest: +SKIP
"""

import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm.config.build import image_shape, sampler_settings
from thermo_ebm.evaluation import trained
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling import samples as sampling
from thermo_ebm.sampling.chains import SamplerSettings
from thermo_ebm.types import Array, Params, PRNGKey, make_batch

_AT_ONCE = 100  # number of samples drawn together

# Compiled once per model and number of images, not once per call.
_sample = jax.jit(sampling.sample_images, static_argnames=("model", "num", "settings"))
_reconstruct = jax.jit(sampling.reconstruct, static_argnames=("model", "settings"))


class Run(NamedTuple):
    """A trained run. Images are float32 [num, height, width, channels] in [-1, 1]."""

    config: ConfigDict  # the configuration of the run
    model: LatentEBM
    sampler: SamplerSettings  # the chains used in training
    files: trained.TrainedRun  # its directory, for `thermo_ebm.evaluation.trained`

    def params(self, repetition: int = 0, step: int | str | None = None) -> Params:
        """The parameters of a repetition at one of its checkpoints, by default the newest.

        Args:
          repetition: which repetition's parameters.
          step: step of the checkpoint, None for the newest, or "best" for the one that
            `launch.eval --keep_best` has kept.

        Raises:
          UserError: there is no such repetition or checkpoint, or it cannot be read.
        """
        return trained.chosen_params(self.files, repetition, step)[1]

    def sample(
        self, num: int, key: PRNGKey, repetition: int = 0, step: int | str | None = None
    ) -> np.ndarray:
        """Images of the model: the prior's chains, then the generator's mean (eq. 2).

        Image i depends only on the key and on i, so that a larger number begins with the same
        images.

        Args:
          num: number of images, at least 1.
          key: consumed.
          repetition: which repetition's parameters.
          step: step of the checkpoint, None or "best", as for `params`.

        Returns:
          [num, height, width, channels]; `thermo_ebm.data.to_uint8` converts them to pixels.

        Raises:
          UserError: there is no such repetition or checkpoint, or it cannot be read.
          ValueError: num is below 1.
        """
        if num < 1:
            raise ValueError(f"num is {num}, must be at least 1")
        params, settings, at_once = self.params(repetition, step), self.sampler.prior, _AT_ONCE
        size = min(num, at_once)
        drawn = [
            np.asarray(_sample(self.model, params, key, size, settings, jnp.int32(first)))
            for first in range(0, num, size)
        ]
        return np.concatenate(drawn)[:num]

    def reconstruct(
        self,
        images: Array | np.ndarray,
        key: PRNGKey,
        repetition: int = 0,
        step: int | str | None = None,
    ) -> np.ndarray:
        """Reconstructions from chains towards p(z | x), one for each image x, all images at once.

        Args:
          images: x, [num, height, width, channels] in [-1, 1], of the run's size.
          key: consumed.
          repetition: which repetition's parameters.
          step: step of the checkpoint, None or "best", as for `params`.

        Returns:
          [num, height, width, channels].

        Raises:
          UserError: there is no such repetition or checkpoint, or it cannot be read.
          ValueError: the images are of another size or not floating-point numbers.
        """
        x = make_batch(images).images
        if x.shape[1:] != image_shape(self.config):
            raise ValueError(
                f"images have shape {x.shape}; this run's are [num, "
                f"{', '.join(map(str, image_shape(self.config)))}]"
            )
        params = self.params(repetition, step)
        return np.asarray(_reconstruct(self.model, params, x, key, self.sampler.posterior))


def load_run(path: str | os.PathLike[str]) -> Run:
    """Opens a run directory written by `launch.train`. Parameters are read when they are needed.

    Raises:
      UserError: the folder is not a run directory, or its configuration is damaged.
    """
    files = trained.open_run(Path(path))
    return Run(files.config, files.model, sampler_settings(files.config), files)
