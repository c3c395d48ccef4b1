"""Keeps the best checkpoint of each repetition by a metric, as a copy that training never removes.

The copy is complete and verified before `best.json` names it, and the copy that it replaces is
removed last, so that a program that is killed in between leaves a best checkpoint that can be read.
"""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

from absl import logging

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import records, trained
from thermo_ebm.evaluation.trained import TrainedRun, UnusableCheckpoint
from thermo_ebm.run import best, layout, tables
from thermo_ebm.run.best import Best

# Columns of `metrics.summary.summarize`, by what is better.
LOWER = ("fid", "fid_inf", "kid", "kid_inf", "kid_rbf_inf", "mifid_inf")
HIGHER = ("is_inf", "precision", "recall", "density", "coverage")


def check(metric: str) -> None:
    """Refuses a metric by which no checkpoint can be called better.

    Raises:
      UserError: naming the metrics.
    """
    if metric not in (*LOWER, *HIGHER):
        raise UserError(f"keep_best={metric}: must be one of {', '.join((*LOWER, *HIGHER))}")


def keep(
    run: TrainedRun, number: int, metric: str, network: str, num_images: int, num_sizes: int
) -> Best | None:
    """Copies a repetition's best evaluated checkpoint to `rep_XX/best/`, unless it is there.

    Evaluated checkpoints that training has removed cannot be kept; the one in `rep_XX/best/` can.

    Args:
      run: the run.
      number: of the repetition.
      metric: one of LOWER or HIGHER.
      network: the prefix of its columns in `eval.csv`.
      num_images: of the evaluations that are compared.
      num_sizes: likewise.

    Returns:
      What is kept by now; None if nothing has been evaluated.

    Raises:
      UserError: the network has no such metric, a file cannot be written, or a table is damaged.
    """
    folder = layout.repetition_dir(run.workdir, number)
    with files.clear_errors(folder), records.locked(folder):
        held = best.read(folder)
        extent = records.extent(network, num_images, num_sizes)
        found = _evaluated(run, number, metric, extent, held)
        candidates = {one.step: one for one in found}
        if held is not None and held[:4] == (metric, network, num_images, num_sizes):
            candidates[held.step] = held
        for one in sorted(candidates.values(), key=_rank):
            if held is not None and one.step == held.step:
                if one != held:
                    best.write(folder, one._replace(source=held.source))
                return best.read(folder)
            if _copy(run, number, one.step):
                best.write(folder, one)
                _remove_others(folder / layout.BEST, one.step)
                return one
    return held if held is not None and held.metric == metric else None


def _rank(one: Best) -> tuple[float, int]:
    """Ascending from the best; of equal ones, the earlier."""
    return (-one.value if one.metric in HIGHER else one.value, one.step)


def _evaluated(
    run: TrainedRun,
    number: int,
    metric: str,
    extent: Mapping[str, tables.Value],
    held: Best | None,
) -> list[Best]:
    """The evaluated checkpoints that exist, the one that is held included."""
    path = layout.repetition_dir(run.workdir, number) / records.EVAL
    network = next(iter(extent)).removesuffix("_num_images")
    column = f"{network}_{metric}"
    rows = [row for row in tables.read(path, columns=None) if extent.items() <= row.items()]
    if rows and all(column not in row for row in rows):
        raise UserError(f"keep_best={metric}: {network} has no such metric; see {path}")
    there = {*trained.checkpoint_steps(run, number), *([] if held is None else [held.step])}
    found = []
    for row in rows:
        value, stderr, step = row.get(column), row.get(f"{column}_stderr"), int(row["step"] or 0)
        if step in there and value is not None and math.isfinite(value):
            source = str(layout.checkpoints_dir(run.workdir, number) / str(step))
            of = (int(each or 0) for each in extent.values())
            found.append(Best(metric, network, *of, value, stderr, step, source))
    return found


def _copy(run: TrainedRun, number: int, step: int) -> bool:
    """Copies a checkpoint and verifies the copy; False, with a warning, if that is impossible."""
    source = layout.checkpoints_dir(run.workdir, number) / str(step)
    folder = layout.repetition_dir(run.workdir, number) / layout.BEST
    unfinished, target = folder / f".{step}.tmp", folder / str(step)
    for path in (unfinished, target):
        shutil.rmtree(path, ignore_errors=True)
    try:
        folder.mkdir(exist_ok=True)
        shutil.copytree(source, unfinished)
        unfinished.rename(target)
        trained.load_best(run, number, step)
    except (FileNotFoundError, shutil.Error, UnusableCheckpoint) as error:
        logging.warning("%s: cannot be kept as the best (%s)", source, error)
        for path in (unfinished, target):
            shutil.rmtree(path, ignore_errors=True)
        return False
    return True


def _remove_others(folder: Path, step: int) -> None:
    for path in folder.iterdir():
        if path.is_dir() and path.name != str(step):
            shutil.rmtree(path, ignore_errors=True)
