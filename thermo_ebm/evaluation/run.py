"""A trained run as one object: its configuration, checkpoints, parameters and images.

>>> import jax
>>> import thermo_ebm as te
>>> run = te.load_run("runs/digits")  # doctest: +SKIP
>>> images = run.sample(64, jax.random.key(0))  # doctest: +SKIP
"""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from thermo_ebm import data, likelihood
from thermo_ebm.config import checks
from thermo_ebm.config.build import image_shape, sampler_settings
from thermo_ebm.data.images import Images, read
from thermo_ebm.errors import UserError, counted, first_line
from thermo_ebm.evaluation import exported as exported_file
from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.likelihood import LikelihoodSettings, MarginalLikelihood
from thermo_ebm.likelihood.verdict import are_reliable
from thermo_ebm.models import own
from thermo_ebm.models.latent_ebm import LatentEBM, make_model, mean_images
from thermo_ebm.run import configuration, layout, provenance, records
from thermo_ebm.sampling import path as paths
from thermo_ebm.sampling import samples as sampling
from thermo_ebm.sampling.chains import SamplerSettings
from thermo_ebm.thermo.schedule import Schedule
from thermo_ebm.train import checkpoint_content, checkpoints
from thermo_ebm.train.state import first_path
from thermo_ebm.train.task import make_task, updates_per_epoch
from thermo_ebm.types import Array, Params, PRNGKey, PyTree, check_images, check_key

# Which of a checkpoint's parameters: the field of the training state that has them.
PARAMETERS = {layout.LAST: "params", layout.AVERAGED: "average"}

# Compiled once per model and number of images, not once per call.
_sample_images = jax.jit(sampling.sample_images, static_argnames=("model", "num", "settings"))
_reconstruct = jax.jit(sampling.reconstruct, static_argnames=("model", "settings"))


_mean_images = jax.jit(mean_images, static_argnames="model")
# Draws from a posterior: less of what all images share than log p(x) to 0.1 nats has.
_DRAWS = LikelihoodSettings(error=0.2, num_pairs=2048, num_probes=512, prior_chains=512)


class UnusableCheckpoint(Exception):
    """A checkpoint that is damaged or whose model is not finite; the message is one line.

    Not a subclass of `ValueError`, so that errors of the program are not mistaken for it.
    """


class LoadedCheckpoint(NamedTuple):
    """The parameters of one checkpoint."""

    repetition: int
    step: int
    params: Params
    kind: str = layout.LAST  # of `PARAMETERS`

    def title(self) -> str:
        """Such as "repetition 0, step 400"."""
        return f"repetition {self.repetition}, step {self.step}{_of_kind(self.kind)}"


class PosteriorDraws(NamedTuple):
    """Draws from the posterior of one image, or of several, which are then the first axis."""

    latents: np.ndarray  # [num, latent_dim]
    images: np.ndarray  # the likelihood's means, [num, height, width, channels]
    log_marginal_likelihood: np.ndarray  # log p of the observed values, in nats
    stderr: np.ndarray
    reliable: np.ndarray  # bool; where false, the chains may have missed a part of the posterior


class Run(NamedTuple):
    """A trained run. Images are float32 [num, height, width, channels] in [-1, 1]."""

    workdir: Path
    config: ConfigDict  # the configuration of the run
    model: LatentEBM
    sampler: SamplerSettings  # the chains used in training
    steps_per_epoch: int
    exported: LoadedCheckpoint | None = None  # of a file, which has no other checkpoint
    parameters: str = layout.LAST  # which are read of a checkpoint, of `PARAMETERS`

    def __repr__(self) -> str:
        shape = " x ".join(map(str, image_shape(self.config)))
        loss, posterior = self.config.loss, self.sampler.posterior
        sampled = f"posterior chains {posterior.kernel}, {posterior.num_steps} steps"
        if self.model.encoder is not None:
            sampled = f"an encoder, {counted(loss.num_importance_samples, 'sample')} of each image"
        return "\n".join(
            [
                f"run {self.workdir}: {self.config.data.name}, images {shape}, latents of "
                f"{self.model.latent_dim}",
                f"loss {loss.name}, reference {loss.reference}; {sampled}",
                *([self.exported.title()] if self.exported else [self._progress()]),
            ]
        )

    def _progress(self) -> str:
        """How far each repetition has come, on one line."""
        last = {number: self.checkpoint_steps(number)[-1:] for number in self.repetitions()}
        parts = [
            f"repetition {number} at step {steps[0]}" for number, steps in last.items() if steps
        ]
        total = self.config.num_epochs * self.steps_per_epoch
        return f"{', '.join(parts) or 'no checkpoint yet'}, of {total}"

    def title(self) -> str:
        """Such as "runs/a", or "runs/a, averaged parameters"."""
        return f"{self.workdir}{_of_kind(self.parameters)}"

    def label(self, network: str) -> str:
        """The prefix of the columns of evaluations: figures of averages have their own."""
        return network if self.parameters == layout.LAST else f"{self.parameters}_{network}"

    def repetitions(self) -> list[int]:
        """The numbers of the repetitions that have a folder, in order."""
        return [self.exported.repetition] if self.exported else layout.repetitions(self.workdir)

    def checkpoint_steps(self, repetition: int) -> list[int]:
        """The steps for which a repetition has complete checkpoints, in order."""
        if self.exported:
            return [self.exported.step]
        return checkpoints.steps_in(layout.checkpoints_dir(self.workdir, repetition))

    def epoch_steps(self, repetition: int) -> list[int]:
        """The steps in `checkpoint_steps` at the end of an epoch, except step 0."""
        steps = self.checkpoint_steps(repetition)
        return [step for step in steps if step > 0 and step % self.steps_per_epoch == 0]

    def params(self, repetition: int = 0, step: int | str | None = None) -> Params:
        """The parameters of a repetition at one of its checkpoints, by default the newest.

        Args:
          repetition: which repetition's parameters.
          step: step of the checkpoint, None for the newest, or "best" for the checkpoint that
            `launch.eval --keep_best` has kept.

        Raises:
          UserError: there is no such repetition or checkpoint, or it cannot be read.
        """
        return self.load(repetition, step).params

    def load(self, repetition: int = 0, step: int | str | None = None) -> LoadedCheckpoint:
        """A checkpoint's parameters with its step; arguments and errors as for `params`."""
        if self.exported and step in (None, self.exported.step):
            return self.exported
        repetitions = self.repetitions()
        if repetition not in repetitions:
            listed = _listed(repetitions)
            raise UserError(f"repetition={repetition}: {self.workdir} has the repetitions {listed}")
        if step == layout.BEST:
            return self._load_best(repetition)
        folder = layout.checkpoints_dir(self.workdir, repetition)
        steps = self.checkpoint_steps(repetition)
        if not steps:
            raise UserError(f"{folder}: no checkpoint there; train first")
        step = steps[-1] if step is None else step
        if not isinstance(step, int) or step not in steps:
            raise UserError(f"step={step}: no such checkpoint; there are {_listed(steps)}")
        try:
            return self.read(repetition, step)
        except (FileNotFoundError, UnusableCheckpoint) as error:
            steps.remove(step)
            raise UserError(f"{error}; choose another step: {_listed(steps)}") from error

    def _load_best(self, repetition: int) -> LoadedCheckpoint:
        folder = layout.repetition_dir(self.workdir, repetition)
        best, advice = records.read_best(folder), "run launch.eval --keep_best=METRIC"
        if best is None:
            raise UserError(f"step=best: {folder} has no best checkpoint yet; {advice}")
        try:
            params = self.read_params(folder / layout.BEST / str(best.step))
        except (FileNotFoundError, UnusableCheckpoint) as error:
            raise UserError(
                f"step=best: {error}; remove {folder / layout.BEST} and {advice}"
            ) from error
        return LoadedCheckpoint(repetition, best.step, params, self.parameters)

    def path(self, checkpoint: LoadedCheckpoint, temperatures: Array) -> paths.Path:
        """The chains' path as training had learned it at a checkpoint.

        Args:
          checkpoint: from `load`.
          temperatures: t_0 = 0 .. t_N, of any N.

        Raises:
          UserError: the checkpoint is not there any more, or cannot be read.
        """
        template = jax.eval_shape(lambda: first_path(make_task(self.config)))
        if template is None:
            return paths.FROM_PRIOR
        if self.exported:
            raise UserError(
                f"{self.workdir}: has parameters alone; the path is in the run's folder"
            )
        folder = layout.checkpoints_dir(self.workdir, checkpoint.repetition)
        if not (folder / str(checkpoint.step)).is_dir():
            folder = layout.repetition_dir(self.workdir, checkpoint.repetition) / layout.BEST
        try:
            state = self._read_field(folder / str(checkpoint.step), "path", template)
        except (FileNotFoundError, UnusableCheckpoint) as error:
            raise UserError(f"{error}; choose another step") from error
        state = paths.with_num_temperatures(state, len(temperatures) - 1)
        return paths.make_ladder(self.model, state, Schedule(temperatures)).path

    def read(self, repetition: int, step: int) -> LoadedCheckpoint:
        """A checkpoint that training may remove at any time; errors as for `read_params`."""
        if self.exported:
            return self.exported
        folder = layout.checkpoints_dir(self.workdir, repetition)
        params = self.read_params(folder / str(step))
        return LoadedCheckpoint(repetition, step, params, self.parameters)

    def read_params(self, checkpoint: Path) -> Params:
        """The parameters in the folder of one checkpoint, on the default device.

        Raises:
          FileNotFoundError: the checkpoint is not there (any more).
          UserError: it was made by a program whose state has another structure.
          UnusableCheckpoint: it is damaged.
        """
        template = jax.eval_shape(lambda: self.model.init(jax.random.key(0)))
        return self._read_field(checkpoint, PARAMETERS[self.parameters], template)

    def _read_field(self, checkpoint: Path, field: str, template: PyTree) -> PyTree:
        """A field of the state in a checkpoint's folder; errors as for `read_params`."""
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        try:
            return checkpoint_content.restore_field(
                checkpoint.parent, int(checkpoint.name), field, template, sharding
            )
        except UserError:
            raise
        except Exception as error:  # Orbax and TensorStore raise many kinds
            if not checkpoint.is_dir():  # training removes old checkpoints, even while it is read
                raise FileNotFoundError(checkpoint) from error
            reason = first_line(error)[:200]
            raise UnusableCheckpoint(f"{checkpoint} cannot be read ({reason})") from error

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
          ValueError: num is below 1, or the key is none.
        """
        check_key(key)
        if num < 1:
            raise ValueError(f"num is {num}, must be at least 1")
        batches = self.sample_batches(self.params(repetition, step), key, num)
        return np.concatenate(list(batches))

    def sample_batches(
        self, params: Params, key: PRNGKey, num: int, batch_size: int = 100
    ) -> Iterator[np.ndarray]:
        """The images of `sample` batch by batch, which bounds the memory.

        The images do not depend on the batch size, but for the rounding of sums.

        Args:
          params: from `params`.
          key: consumed.
          num: number of images of all batches, at least 1.
          batch_size: images drawn together.

        Yields:
          At most `batch_size` images, [batch_size, height, width, channels].
        """
        size = min(num, batch_size)
        for first in range(0, num, size):
            images = _sample_images(
                self.model, params, key, size, self.sampler.prior, jnp.int32(first)
            )
            yield np.asarray(images)[: num - first]

    def reconstruct(
        self,
        images: Array | np.ndarray,
        key: PRNGKey,
        repetition: int = 0,
        step: int | str | None = None,
    ) -> np.ndarray:
        """Reconstructions from chains towards p(z | x), one for each image x, all images at once.

        A run with an encoder reconstructs from draws of its q(z | x).

        Args:
          images: x, [num, height, width, channels] in [-1, 1], of the run's size.
          key: consumed.
          repetition: which repetition's parameters.
          step: step of the checkpoint, None or "best", as for `params`.

        Returns:
          [num, height, width, channels].

        Raises:
          UserError: there is no such repetition or checkpoint, or it cannot be read.
          ValueError: the images are of another size or not floating-point numbers in [-1, 1], or
            the key is none.
        """
        check_key(key)
        x = self._checked(images)
        params = self.params(repetition, step)
        return np.asarray(_reconstruct(self.model, params, x, key, self.sampler.posterior))

    def log_marginal_likelihood(
        self,
        images: Array | np.ndarray,
        key: PRNGKey,
        repetition: int = 0,
        step: int | str | None = None,
        settings: LikelihoodSettings = LikelihoodSettings(),  # noqa: B008 (immutable)
    ) -> MarginalLikelihood:
        """log p(x) of each image by annealed SMC, with its error and a verdict.

        Args:
          images: x, [num, height, width, channels] in [-1, 1], of the run's size.
          key: consumed.
          repetition: which repetition's parameters.
          step: step of the checkpoint, None or "best", as for `params`.
          settings: the estimator.

        Raises:
          UserError: there is no such repetition or checkpoint, or it cannot be read.
          ValueError: the images are of another size or not floating-point numbers in [-1, 1], or
            the key is none.
        """
        x = self._checked(images)
        params = self.params(repetition, step)
        return likelihood.log_marginal_likelihood(self.model, params, x, key, settings)

    def posterior(
        self,
        image: Array | np.ndarray,
        key: PRNGKey,
        num: int,
        mask: Array | np.ndarray | None = None,
        repetition: int = 0,
        step: int | str | None = None,
    ) -> PosteriorDraws:
        """Draws from p(z | x) of one image x, or from p(z | observed pixels) if some are hidden.

        The chains come from the linear estimate of z that knows the observed pixels, by annealed
        SMC with the temperatures that the standard error of log p, 0.2 nats, needs.

        Args:
          image: x, [height, width, channels] in [-1, 1], of the run's size.
          key: consumed.
          num: number of draws, each by a chain of its own, at least 1.
          mask: true where a pixel is hidden: its value in `image` has no influence. Bool
            [height, width] or [height, width, channels]; None: nothing is hidden.
          repetition: which repetition's parameters.
          step: step of the checkpoint, None or "best", as for `params`.

        Returns:
          The draws; their images show all pixels, observed and hidden, as the model sees them.

        Raises:
          UserError: there is no such repetition or checkpoint, or it cannot be read.
          ValueError: num is below 1, the image or the mask is of another size, the image not of
            floating-point numbers in [-1, 1], the mask not bool, or the key is none.
        """
        images = jnp.asarray(image)[None]
        several = self.posteriors(images, key, num, mask, self.params(repetition, step))
        return PosteriorDraws(*(field[0] for field in several))

    def posteriors(
        self,
        images: Array | np.ndarray,
        key: PRNGKey,
        num: int,
        mask: Array | np.ndarray | None,
        params: Params,
    ) -> PosteriorDraws:
        """`posterior` of several images with the same mask; every field has an axis of images.

        Args:
          images: [num_images, height, width, channels] in [-1, 1], of the run's size.
          key: consumed.
          num: draws of each image, at least 1.
          mask: true where a pixel is hidden, as for `posterior`.
          params: from `params`.
        """
        check_key(key)
        if num < 1:
            raise ValueError(f"num is {num}, must be at least 1")
        x, shape = self._checked(images), image_shape(self.config)
        observed = np.ones(shape, bool) if mask is None else ~_checked_mask(mask, shape)
        likelihood.check_levels(np.asarray(x)[:, observed], self.model.likelihood.levels)
        part = None if mask is None else jnp.asarray(observed)
        preparation = likelihood.prepare(self.model, params, shape, _DRAWS, part)
        estimate_key, draw_key = jax.random.split(key)
        settings = _DRAWS._replace(batch_size=min(len(x), _DRAWS.batch_size))
        estimator = likelihood.Estimator(preparation, settings, estimate_key)
        estimates, _, latents = estimator.draws(x, num, draw_key)
        flat = jnp.asarray(latents).reshape(-1, self.model.latent_dim)
        means = _mean_images(self.model, params["generator"], flat)
        return PosteriorDraws(
            latents,
            np.asarray(means).reshape(*latents.shape[:2], *shape),
            estimates.log_marginal_likelihood,
            np.hypot(estimates.stderr, preparation.prior.stderr),
            np.asarray(are_reliable(estimates, settings)),
        )

    def evaluate(
        self,
        settings: MetricSettings = MetricSettings(),  # noqa: B008 (immutable)
        repetition: int = 0,
        step: int | str | None = None,
        data_dir: str | None = None,
    ) -> dict[str, float]:
        """FID, KID and more of a checkpoint's samples against the held-out images, with errors.

        The samples and metrics of `launch.eval`, which writes them; here nothing is written.

        Args:
          settings: network and numbers.
          repetition: which repetition's parameters.
          step: step of the checkpoint, None or "best", as for `params`.
          data_dir: where the data are now; None for the place that the run recorded.

        Returns:
          Each metric and, in `<metric>_stderr`, its standard error.

        Raises:
          UserError: the checkpoint, the images or the network are not there, or images too few.
        """
        # `evaluate` works on runs; imported here, since it imports this module.
        evaluation = importlib.import_module("thermo_ebm.evaluation.evaluate")
        settings = settings.with_protocol()
        prepared = evaluation.prepare(self, settings, settings.choose_network(), data_dir)
        checkpoint = self.load(repetition, step)
        try:
            return evaluation.measure(self, checkpoint, prepared).values
        except UnusableCheckpoint as error:
            raise UserError(f"{self.workdir}, {checkpoint.title()}: {error}") from error

    def export(
        self, path: str | os.PathLike[str], repetition: int = 0, step: int | str | None = None
    ) -> None:
        """Writes a checkpoint's parameters with the configuration; `te.load_run` opens the file.

        A file of safetensors, without optimisers, chains and readings.

        Args:
          path: the file to write, such as model.safetensors; its folder must be there.
          repetition: which repetition's parameters.
          step: step of the checkpoint, None or "best", as for `params`.

        Raises:
          UserError: there is no such repetition or checkpoint, or the file cannot be written.
        """
        checkpoint = self.load(repetition, step)
        config = configuration.as_json(self.config)
        exported_file.write(Path(path), config, *checkpoint)

    def _checked(self, images: Array | np.ndarray) -> Array:
        """Images of the run's size."""
        x, shape = check_images(images), image_shape(self.config)
        if x.shape[1:] != shape:
            raise ValueError(
                f"images have shape {x.shape}; this run's are [num, {', '.join(map(str, shape))}]"
            )
        return x

    def validation_images(self, data_dir: str | None = None) -> np.ndarray:
        """The run's held-out images, uint8 [num_val, height, width, channels].

        Args:
          data_dir: where the data are now; None for the place that the run recorded.

        Raises:
          UserError: they are not there, or cannot be read.
        """
        try:
            return read(self.validation_set(data_dir))
        except UserError as error:
            if data_dir is not None:
                raise
            raise UserError(f"{error} (data_dir says where the data are now)") from error

    def validation_set(self, data_dir: str | None = None) -> Images:
        """The run's held-out images before they are decoded, with what their source left out.

        Raises:
          UserError: they are not there, or are scikit-learn's and in no folder.
        """
        return self._image_sets(data_dir, num_train=1)[1]  # which do not depend on num_train

    def training_set(self, data_dir: str | None = None) -> Images:
        """The run's training images before they are decoded; errors as for `validation_set`."""
        return self._image_sets(data_dir, self.config.data.num_train)[0]

    def _image_sets(self, data_dir: str | None, num_train: int) -> tuple[Images, Images]:
        config = self.config.data.copy_and_resolve_references()
        if data_dir is not None:
            if config.name == "digits":
                raise UserError(
                    f"data_dir={data_dir}: this run's images are the digits, which scikit-learn "
                    "has; omit data_dir"
                )
            config.data_dir = data_dir
        config.num_train = num_train
        return data.open_images(config)

    def key(self, repetition: int) -> PRNGKey:
        """The key with which a repetition was trained."""
        return jax.random.key(self.config.seed + repetition)


def _of_kind(parameters: str) -> str:
    """The end of a title: which parameters, unless they are the last."""
    return "" if parameters == layout.LAST else f", {parameters} parameters"


def load_run(path: str | os.PathLike[str], parameters: str | None = None) -> Run:
    """Opens a run directory written by `launch.train`, or a file that `Run.export` wrote.

    The parameters in a directory are read when they are needed.

    Args:
      path: the directory or the file, whose suffix may be left out.
      parameters: "last" for those after a checkpoint's last update, or "averaged" for their average
        over updates, which a run with `optimizer.ema_decay` keeps; None for the last, or for those
        of the file.

    Raises:
      UserError: it is neither, its configuration is damaged, or it has no such parameters.
    """
    if parameters not in (None, *PARAMETERS):
        raise UserError(f"parameters={parameters}: must be {' or '.join(PARAMETERS)}")
    workdir = Path(path)
    if (file := exported_file.find(workdir)) is not None:
        return _load_exported(file, parameters)
    fields = configuration.read_config(workdir)
    run = _make_run(workdir, workdir / layout.CONFIG, fields)
    source = own.source(run.config)
    if source is not None and (change := provenance.source_change(workdir, source.sha256)):
        logging.warning("%s", change)
    if parameters == layout.AVERAGED and not run.config.optimizer.ema_decay:
        raise UserError(
            f"parameters={parameters}: {workdir} has no average of its parameters; a run with "
            "optimizer.ema_decay above 0 keeps one"
        )
    return run._replace(parameters=parameters or layout.LAST)


def _load_exported(path: Path, parameters: str | None) -> Run:
    content = exported_file.read(path)
    if parameters not in (None, content.kind):
        raise UserError(f"parameters={parameters}: {path} has the {content.kind} parameters alone")
    run = _make_run(path, path, content.config)
    template = jax.eval_shape(lambda: run.model.init(jax.random.key(0)))
    params = exported_file.restore(path, content, template)
    checkpoint = LoadedCheckpoint(content.repetition, content.step, params, content.kind)
    return run._replace(exported=checkpoint, parameters=content.kind)


def _make_run(workdir: Path, source: Path, fields: dict[str, Any]) -> Run:
    """The run of a configuration that was read from `source`."""
    config = ConfigDict(fields)
    try:
        checks.check(config)
        model = make_model(config)
    except (UserError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{source}: not a complete configuration: {error}") from error
    return Run(workdir, config, model, sampler_settings(config), updates_per_epoch(config))


def _checked_mask(mask: Array | np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A mask of pixels or of data values as bool [height, width, channels]."""
    hidden = np.asarray(mask)
    if hidden.dtype != np.bool_ or hidden.shape not in (shape[:2], shape):
        raise ValueError(
            f"mask is {hidden.dtype} {hidden.shape}, must be bool {shape[:2]} or {shape}, true "
            "where a pixel is hidden"
        )
    return np.broadcast_to(hidden if hidden.ndim == 3 else hidden[:, :, None], shape)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
