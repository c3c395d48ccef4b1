"""Finds the parameters of another run with which a new run begins."""

import re
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm import runtime
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation.run import Run, load_run
from thermo_ebm.fields import FIELDS, FIXED, flatten
from thermo_ebm.models.latent_ebm import LatentEBM, make_model
from thermo_ebm.run import configuration, layout, warm_start
from thermo_ebm.run.warm_start import SourceCheckpoint, WarmStart
from thermo_ebm.train import checkpoint_content

# Fields on which the parameters and their shapes depend.
_SHAPES = [
    name
    for name, field in FIELDS.items()
    if (field.on_resume == FIXED and name.startswith("model."))
    or name in ("data.channels", "loss.name")
]


def parse(text: str, flag: str = "init_from") -> SourceCheckpoint:
    """The checkpoint that RUN[:REPETITION[:STEP]] names; errors name the flag.

    >>> parse("/runs/a:2:best")
    SourceCheckpoint(run='/runs/a', repetition=2, step='best')
    """
    parts = re.fullmatch(r"(.+?)(?::(\d+)(?::(\d+|best))?)?", text)
    run, repetition, step = parts.groups() if parts else ("", None, None)
    if not run or (":" in run and not Path(run).exists()):
        raise UserError(f"{flag}={text}: must be RUN[:REPETITION[:STEP]], STEP a number or best")
    folder = str(Path(runtime.expand_home(run)).absolute())
    number = int(step) if step and step != layout.BEST else step
    return SourceCheckpoint(folder, int(repetition or 0), number)


def find(text: str | None, config: ConfigDict, workdir: Path) -> WarmStart | None:
    """Reads the parameters with which a new run begins.

    Args:
      text: RUN[:REPETITION[:STEP]]; None if the run begins with random parameters.
      config: of the new run.
      workdir: of the new run.

    Returns:
      None without `text`, and if the run has begun: it has recorded what it began with.

    Raises:
      UserError: the run has begun in another way, the source cannot be read, or the parameters of
        its model have other shapes.
    """
    if text is None:
        return None
    source = parse(text)
    if layout.has_begun(workdir):
        warm_start.check(workdir, source)
        return None
    try:
        run = load_run(source.run)
        _check_shapes(run, config)
        checkpoint = run.load(source.repetition, source.step)
    except UserError as error:
        raise UserError(f"init_from={text}: {error}") from error
    named = checkpoint_content.named_params(checkpoint.params)
    return WarmStart(
        source, checkpoint.step, {name: np.asarray(leaf) for name, leaf in named.items()}
    )


def _check_shapes(run: Run, config: ConfigDict) -> None:
    """Raises UserError if a model of `config` has parameters of other shapes than the run's."""
    if _shapes(run.model) == _shapes(make_model(config)):
        return
    source_fields, new_fields = (
        flatten(configuration.as_json(fields)) for fields in (run.config, config)
    )
    differing = [
        f"{field} is {source_fields[field]} there and {new_fields[field]} here"
        for field in _SHAPES
        if source_fields[field] != new_fields[field]
    ]
    raise UserError(f"its model has other shapes: {', '.join(differing)}")


def _shapes(model: LatentEBM) -> dict[str, tuple[int, ...]]:
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    return {name: leaf.shape for name, leaf in checkpoint_content.named_params(params).items()}
