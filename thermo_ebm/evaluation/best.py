"""Keeps the best checkpoint of each repetition by a metric, as a copy that training never removes.

The best of many noisy values is too good by chance. The choice is therefore by one half of the
images, and the value to be reported is that of the other half, which had no part in it.

The copy is complete and verified before `best.json` names it, and the copy that it replaces is
removed last, so that a program that is killed in between leaves a best checkpoint that can be read.
"""

import math
import shutil
from typing import NamedTuple

from absl import logging

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import records
from thermo_ebm.evaluation.run import Run, UnusableCheckpoint
from thermo_ebm.likelihood.verdict import LEAST_SHARE
from thermo_ebm.metrics import paired
from thermo_ebm.run import layout, tables
from thermo_ebm.run.records import Best, read_best, write_best

HIGHER_IS_BETTER = (*paired.HIGHER_IS_BETTER, "log_marginal_likelihood")


class Criterion(NamedTuple):
    """The metric by which checkpoints are compared, and the settings of its evaluations."""

    metric: str  # one of those of `metrics.paired`
    network: str  # the prefix of its columns in `eval.csv`
    num_images: int  # of the evaluations that are compared
    num_sizes: int


def keep(run: Run, repetition: int, criterion: Criterion) -> Best | None:
    """Copies a repetition's best evaluated checkpoint to `rep_XX/best/`, unless it is there.

    Evaluated checkpoints that training has removed cannot be kept; the one in `rep_XX/best/` can.

    Args:
      run: the run.
      repetition: number of the repetition.
      criterion: what is best.

    Returns:
      The best checkpoint that is now in `rep_XX/best/`; None if nothing has been evaluated.

    Raises:
      UserError: the network has no such metric, a file cannot be written, or a table is damaged.
    """
    folder = layout.repetition_dir(run.workdir, repetition)
    with files.clear_errors(folder), records.locked(folder):
        current = read_best(folder)
        candidates = _evaluated(run, repetition, criterion, current)
        by_halves = any(candidate.reported is not None for candidate in candidates.values())
        is_comparable = current is not None and (
            current[:4] == criterion and (current.reported is not None) == by_halves
        )
        if current is not None and (is_comparable or not candidates):
            candidates[current.step] = current
        for candidate in sorted(candidates.values(), key=_rank):
            if current is not None and candidate.step == current.step:
                if candidate != current:
                    write_best(folder, candidate._replace(source=current.source))
                return read_best(folder)
            if _copy(run, repetition, candidate.step):
                write_best(folder, candidate)
                for path in (folder / layout.BEST).iterdir():
                    if path.is_dir() and path.name != str(candidate.step):
                        shutil.rmtree(path, ignore_errors=True)
                return candidate
    return current if current is not None and current.metric == criterion.metric else None


def _rank(candidate: Best) -> tuple[float, int]:
    """Ascending from the best; of equal values, the earlier checkpoint is the better."""
    value = -candidate.value if candidate.metric in HIGHER_IS_BETTER else candidate.value
    return value, candidate.step


def _evaluated(
    run: Run, repetition: int, criterion: Criterion, current: Best | None
) -> dict[int, Best]:
    """All evaluated checkpoints still on disk by step, including the current best."""
    path = layout.repetition_dir(run.workdir, repetition) / layout.EVALUATIONS
    metric, network = criterion[:2]
    extent = records.extent(*criterion[1:])
    rows = [row for row in tables.read(path, columns=None) if extent.items() <= row.items()]
    # Rows of earlier versions have no halves; where any has, only those are compared.
    choosing, reported = records.half_columns(network, metric)
    by_halves = any(row.get(choosing) is not None for row in rows)
    column = choosing if by_halves else f"{network}_{metric}"
    if rows and all(column not in row for row in rows):
        raise UserError(f"keep_best={metric}: {network} has no such metric; see {path}")
    steps = {*run.checkpoint_steps(repetition)} | ({current.step} if current else set())
    candidates = {}
    for row in rows:
        value, stderr, step = row.get(column), row.get(f"{column}_stderr"), int(row["step"] or 0)
        reliable = row.get(f"{network}_reliable")
        if reliable is not None and reliable < LEAST_SHARE:
            continue
        if step in steps and value is not None and math.isfinite(value):
            source = str(layout.checkpoints_dir(run.workdir, repetition) / str(step))
            halves = (row.get(reported), row.get(f"{reported}_stderr")) if by_halves else ()
            candidates[step] = Best(*criterion, value, stderr, step, source, *halves)
    return candidates


def _copy(run: Run, repetition: int, step: int) -> bool:
    """Copies a checkpoint and verifies the copy; False, with a warning, if that is impossible."""
    source = layout.checkpoints_dir(run.workdir, repetition) / str(step)
    folder = layout.repetition_dir(run.workdir, repetition) / layout.BEST
    unfinished, target = folder / f".{step}.tmp", folder / str(step)
    for path in (unfinished, target):
        shutil.rmtree(path, ignore_errors=True)
    try:
        folder.mkdir(exist_ok=True)
        shutil.copytree(source, unfinished)
        unfinished.rename(target)
        run.read_params(target)
    except (FileNotFoundError, shutil.Error, UnusableCheckpoint) as error:
        logging.warning("%s: cannot be kept as the best (%s)", source, error)
        for path in (unfinished, target):
            shutil.rmtree(path, ignore_errors=True)
        return False
    return True
